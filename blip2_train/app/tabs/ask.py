"""The tab that answers questions about an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from blip2_train.app.asking import Talk, next_answer, short_answer
from blip2_train.app.context import Context
from blip2_train.app.tabs.parts import (
    CALLS,
    answer_with,
    code_field,
    example_images,
    gr,
    image_field,
    model_field,
    note_field,
    settings_fields,
    settings_of,
)
from blip2_train.evaluation.report.markup import escape

CONVERSATION, SHORT = "conversation", "each for itself, shortly"


def ask_tab(context: Context) -> None:
    """Build the tab."""

    def answers(
        model: str,
        image: str | None,
        question: str,
        how: str,
        stream: bool,
        talk: Talk,
        *settings: Any,
    ) -> Iterator[tuple[Any, ...]]:
        options, opened = settings_of(*settings), context.models.open(model)
        talk = Talk() if talk.ended else talk  # whose last part came in after its end
        if how == SHORT:
            replies = iter([short_answer(opened, image, question, options)])
        else:
            replies = next_answer(opened, image, talk.rounds, question, options, stream)
        for reply in talk.answered(question, replies):
            if reply is None:  # a part that was on its way when the conversation ended is taken off the page, too
                yield [], Talk(), gr.skip(), gr.skip()
                return
            yield messages(talk.rounds), talk, "", context.code(reply.call, model)

    def start_anew(talk: Talk) -> tuple[list[Any], Talk]:
        return [], talk.anew()

    def as_it_stands(talk: Talk) -> list[Any]:
        return messages(talk.shown)

    with gr.Row():
        with gr.Column():
            image = image_field()
            question = gr.Textbox(label="question", placeholder="what is on the left?", render=False)
            rows = [[str(example.image), example.question] for example in context.examples]
            example_images(context, [image, question], rows)
        with gr.Column():
            model = model_field(context, matches_texts=False, of_questions=True)
            shown = gr.Chatbot(label="answers", height=320, render_markdown=False, buttons=["copy_all"])
            talk = gr.State(Talk())
            question.render()
            how = gr.Radio([CONVERSATION, SHORT], value=CONVERSATION, label="questions are")
            stream = gr.Checkbox(True, label="show answers while they are generated (without beams)")
            with gr.Row():
                button = gr.Button("ask", variant="primary")
                anew = gr.Button("start anew")
            note = note_field()
            settings = settings_fields()
            code = code_field()
    fields = [model, image, question, how, stream, talk, *settings]
    answer_with([button.click, question.submit], answers, fields, note, [shown, talk, question, code])
    for event in (anew.click, shown.clear, image.change, model.change):
        event(
            start_anew,
            talk,
            [shown, talk],
            api_visibility="private",
            show_progress="hidden",
            concurrency_limit=None,  # waits for no other call, but its result comes behind what was sent before
        ).then(
            # Gradio sends the last part of an answer twice; where the second came behind, it stays until here
            as_it_stands,
            talk,
            shown,
            api_visibility="private",
            show_progress="hidden",
            concurrency_id=CALLS,  # behind the answer that was being generated
            concurrency_limit=1,
        )


def messages(rounds: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Rounds as the chat shows them, which takes text for HTML; an answer of no letter is shown as a dash.

    Example:
        >>> messages([("<b>?", "")])
        [{'role': 'user', 'content': '&lt;b&gt;?'}, {'role': 'assistant', 'content': '–'}]
    """
    pairs = [
        ({"role": "user", "content": escape(query)}, {"role": "assistant", "content": escape(answer or "–")})
        for query, answer in rounds
    ]
    return [message for pair in pairs for message in pair]
