"use strict";
// The filters live in the address (#task=…&min=…), so that a link can point at a filtered view.
const form = document.getElementById("filters");
const gallery = document.getElementById("gallery");
if (form && gallery) {
  const cards = [...gallery.querySelectorAll(".card")];
  const texts = new Map(cards.map((card) => [card, card.querySelector(".details").textContent.toLowerCase()]));
  const fields = [...form.elements].filter((field) => field.name);

  const showView = (card, view) => {
    card.querySelectorAll(".heat").forEach((layer, index) => { layer.hidden = view !== String(index); });
    const choice = card.querySelector(".attention-choice");
    if (choice) choice.value = [...choice.options].some((option) => option.value === view) ? view : "";
    card.querySelectorAll(".word").forEach((word) => { word.setAttribute("aria-pressed", String(word.dataset.view === view)); });
  };

  const zoomed = document.getElementById("zoomed");
  const enlarge = (stage) => {
    zoomed.querySelectorAll(".stage").forEach((old) => old.remove());
    const copy = stage.cloneNode(true);
    copy.querySelector(".zoom").remove();
    zoomed.append(copy);
    zoomed.showModal();
  };

  const unit = (task) => {  // scores of several tasks can be compared only if they are of one metric
    const units = [...form.elements.task.options].slice(1).filter((o) => !task || o.value === task).map((o) => o.dataset.metric);
    return units.every((one) => one === units[0]) ? units[0] || "" : "";
  };

  const apply = () => {
    const value = (name) => (form.elements[name] ? form.elements[name].value : "");
    const known = unit(value("task"));
    document.getElementById("scores").disabled = !known;
    document.getElementById("metric").textContent = known ? `: ${known}` : " (choose a task)";
    const low = known && value("min") !== "" ? Number(value("min")) : -Infinity;
    const high = known && value("max") !== "" ? Number(value("max")) : Infinity;
    const find = value("find").toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (card) => {
      const { task, domain, pick, score } = card.dataset;
      if (value("task") && task !== value("task")) return false;
      if (value("domain") && domain !== value("domain")) return false;
      if (value("pick") && pick !== value("pick")) return false;
      if (score === undefined ? low > -Infinity || high < Infinity : Number(score) < low || Number(score) > high) return false;
      return find.every((word) => texts.get(card).includes(word));
    };
    const sign = value("sort") === "worst" ? -1 : 1;
    const position = (card) => (card.dataset.order === undefined ? Infinity : sign * Number(card.dataset.order));
    const shown = cards.filter((card) => { card.hidden = !matches(card); return !card.hidden; });
    gallery.append(...[...cards].sort((a, b) => position(a) - position(b) || 0));
    document.getElementById("count").textContent = `${shown.length} of ${cards.length} examples`;
    document.getElementById("none").hidden = shown.length > 0;
  };

  const showAttention = () => {
    const box = form.elements.attention;
    if (box) cards.forEach((card) => showView(card, box.checked ? "0" : ""));
  };

  const readAddress = () => {
    const chosen = new URLSearchParams(location.hash.slice(1));
    for (const field of fields) {
      if (field.type === "checkbox") field.checked = chosen.has(field.name);
      else field.value = chosen.get(field.name) || "";
      if (field.tagName === "SELECT" && field.selectedIndex < 0) field.value = "";
    }
    showAttention();
    apply();
  };

  const writeAddress = () => {
    const filters = new URLSearchParams();
    for (const field of fields) {
      if (field.type === "checkbox" ? field.checked : field.value) filters.set(field.name, field.type === "checkbox" ? "on" : field.value);
    }
    history.replaceState(null, "", `#${filters}`);
  };

  form.addEventListener("input", (event) => {
    if (event.target.name === "attention") showAttention();
    writeAddress();
    apply();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    history.replaceState(null, "", "#");
    readAddress();
  });
  gallery.addEventListener("change", (event) => {
    if (event.target.matches(".attention-choice")) showView(event.target.closest(".card"), event.target.value);
  });
  gallery.addEventListener("click", (event) => {
    const word = event.target.closest(".word");
    if (word) showView(word.closest(".card"), word.getAttribute("aria-pressed") === "true" ? "" : word.dataset.view);
    if (event.target.matches(".zoom")) enlarge(event.target.closest(".stage"));
  });
  zoomed.addEventListener("click", () => zoomed.close());
  window.addEventListener("hashchange", () => {
    readAddress();
    document.getElementById("examples").scrollIntoView();
  });
  readAddress();
}
