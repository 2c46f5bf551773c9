"""A trained model in use: captions, answers, conversations, matching scores and features of images.

Shape letters: N images, M texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NoReturn, overload

import torch
from torch import Tensor

from blip2_train.data.batches.image_inputs import ImageInput, ImageInputs, listed
from blip2_train.data.storage.web import is_address
from blip2_train.errors import ConfigError
from blip2_train.evaluation import prompts
from blip2_train.evaluation.conversation import Conversation
from blip2_train.evaluation.embedding import MatchScores, generative_features, image_text_features, match_all, paired
from blip2_train.evaluation.generation import (
    ANSWERING,
    CAPTIONING,
    Prompt,
    batches,
    check_prompt,
    generate_texts,
    generation_options,
    one_text,
    random_state,
    stream_text,
)
from blip2_train.evaluation.loaded_model import LoadedModel
from blip2_train.evaluation.precision import suitable_autocast
from blip2_train.evaluation.qformer_captions import generate_captions, qformer_defaults, stream_caption
from blip2_train.evaluation.ranking import SHORTLIST, rank_texts
from blip2_train.evaluation.streaming import check_streams, streaming_defaults, text_parts
from blip2_train.evaluation.transformers_calls import generate_ids

AT_ONCE = 16


class Blip2(LoadedModel):
    """A model with everything around it: images and texts in; texts, scores or features out.

    `answer` and `chat` need a generative model (stage 2 and what follows it), `match` and the features of texts a model
    of images and texts (stage 1, retrieval); `caption` works with both. Images are of the kinds of `ImageInput`; a
    single one counts as a list of one. Batch sizes change only what is sampled. Options of generation are the fields of
    `GenerationOptions`; `seed` is that of sampling, None = torch's own state. With `stream=True`, a method gives the
    text of one image part by part, while it is generated, by default without beams.

    Args:
        network: The model with its weights, on the device where it is to run.
        processor: Its transform and tokenizers.
        source: Its origin, for messages.
        has_prediction_head: Whether the Q-Former of a stage-1 model has a trained head; transformers' retrieval models
            have none, and cannot describe.
    """

    _conversation: Conversation | None = None

    @overload
    def caption(self, images: ImageInputs, *, stream: Literal[True], **options: Any) -> Iterator[str]: ...

    @overload
    def caption(self, images: ImageInputs, *, stream: Literal[False] = False, **options: Any) -> list[str]: ...

    def caption(
        self,
        images: ImageInputs,
        *,
        prompt: str | Sequence[str] | None = None,
        batch_size: int = AT_ONCE,
        seed: int | None = None,
        stream: bool = False,
        **generation: Any,
    ) -> list[str] | Iterator[str]:
        """Describe N images, or one image N times; each image is encoded once.

        Args:
            images: The images, or one for all prompts; equal ones should follow each other.
            prompt: Beginning of the captions, one for all or one for each; None = the prompt of training, "" = none.
            batch_size: Images at once.
            seed: Seed of sampling.
            stream: Give the caption of one image part by part.
            **generation: Default: 5 beams and up to 30 new tokens; by the Q-Former of a stage-1 model 3 beams and 9
                to 29 tokens.

        Returns:
            N captions, without the prompt; `num_return_sequences` of each image, image by image, if that is given.

        Raises:
            ConfigError: if an option or the prompt cannot be used, or a stage-1 model came without prediction head.
            ShardError: naming a file that is no readable image.
        """
        given = self.processor.prompt if prompt is None else prompt
        inputs = listed(images)
        if len(inputs) == 1 and not isinstance(given, str):
            inputs = inputs * len(given)
        starts = prompts.one_prompt_each(given, len(inputs))
        if self.network.matches_texts:
            self.check_describes()
            network = self.image_text("caption")
            options = generation_options(qformer_defaults(generation) | streaming_defaults(stream), generation)
            if stream:
                check_streams(options, len(inputs))
                steps, decode = stream_caption(network, self.processor, inputs[0], starts[0], options)
                return text_parts(steps, decode, network, seed, suitable_autocast, whole_words=True)
            with random_state(seed, self.device), suitable_autocast(network):
                return generate_captions(network, self.processor, inputs, starts, options, batch_size)
        requests = [Prompt(start, "") for start in starts]
        return self._write("caption", inputs, requests, CAPTIONING, generation, batch_size, seed, stream)

    @overload
    def answer(
        self, images: ImageInputs, questions: str | Sequence[str], *, stream: Literal[True], **options: Any
    ) -> Iterator[str]: ...

    @overload
    def answer(
        self, images: ImageInputs, questions: str | Sequence[str], *, stream: Literal[False] = False, **options: Any
    ) -> list[str]: ...

    def answer(
        self,
        images: ImageInputs,
        questions: str | Sequence[str],
        *,
        prompt: str | None = None,
        clean: bool = True,
        candidates: Sequence[str] | None = None,
        shortlist: int = SHORTLIST,
        batch_size: int = AT_ONCE,
        seed: int | None = None,
        stream: bool = False,
        **generation: Any,
    ) -> list[str] | Iterator[str]:
        """Answer a question about each of N images, or N questions about one; each image is encoded once.

        Args:
            images: The images, or one for all questions; equal ones should follow each other.
            questions: One for each, or one for all.
            prompt: The form of a question, with `{}` for it; None = what the model was trained with, else as the
                paper: "Question: {} Answer:" for decoder-only, "… Short answer:" for encoder-decoder language models.
            clean: Bring questions to the form in which data sets give them: lower case, without `.!"()*#:;~`.
            candidates: Answer with the likeliest of these, and generate nothing.
            shortlist: How many of them, those with the likeliest first tokens, are read to the end.
            batch_size: Images at once.
            seed: Seed of sampling.
            stream: Give the answer to one question part by part.
            **generation: Default: 5 beams, up to 10 new tokens and length penalty -1.

        Returns:
            N answers; `num_return_sequences` to each question, one after the other, if that is given.

        Raises:
            ConfigError: if an option, the prompt or a question cannot be used, or this is no generative model.
            ShardError: naming a file that is no readable image.

        Source: BLIP-2, section 4.1; the cleaning is that of its released data sets.
        """
        template = prompts.question_template(prompt, self.processor.prompt, self.network.is_encoder_decoder)
        inputs = listed(images)
        if len(inputs) == 1 and not isinstance(questions, str):
            inputs = inputs * len(questions)
        cleaned = prompts.one_question_each(questions, len(inputs), clean)
        requests = [Prompt(prompts.question_prompt(template, text), text.strip()) for text in cleaned]
        if candidates is None:
            return self._write("answer", inputs, requests, ANSWERING, generation, batch_size, seed, stream)
        if generation or stream:
            raise ConfigError(
                f"{next(iter(generation), 'stream')} changes nothing among candidates; leave out one of the two"
            )
        with suitable_autocast(network := self.generative("answer")):
            return rank_texts(network, self.processor, inputs, requests, candidates, shortlist, batch_size)

    @overload
    def chat(
        self,
        image: ImageInput,
        turns: Sequence[tuple[str, str]],
        message: str,
        *,
        stream: Literal[True],
        **options: Any,
    ) -> Iterator[str]: ...

    @overload
    def chat(
        self,
        image: ImageInput,
        turns: Sequence[tuple[str, str]],
        message: str,
        *,
        stream: Literal[False] = False,
        **options: Any,
    ) -> str: ...

    def chat(
        self,
        image: ImageInput,
        turns: Sequence[tuple[str, str]],
        message: str,
        *,
        prompt: str | None = None,
        seed: int | None = None,
        stream: bool = False,
        **generation: Any,
    ) -> str | Iterator[str]:
        """Answer a message about an image, after earlier rounds.

        What was read of the last conversation is kept, so that its next round costs only what is new in it.

        Args:
            image: The image; what an address leads to is fetched when its conversation begins, and kept for the next
                rounds.
            turns: Earlier questions and answers, oldest first.
            message: The new question; used unchanged.
            prompt: The form of a question, with `{}` for it; None = "Question: {} Answer:".
            seed: Seed of sampling.
            stream: Give the answer part by part.
            **generation: As for `caption`.

        Returns:
            The answer, up to where the model would go on with a question of its own.

        Raises:
            PromptTooLong: if the conversation is longer than the model can read; leave out its first rounds.
            ConfigError: if an option or the message cannot be used, or this is no generative model.
            ShardError: naming a file that is no readable image.
        """
        template = prompts.question_template(
            prompts.CHAT if prompt is None else prompt, "", self.network.is_encoder_decoder
        )
        request = Prompt(prompts.conversation_prompt(template, turns, message), message.strip())
        network, defaults = self.generative("chat"), CAPTIONING | streaming_defaults(stream)
        options = one_text(generation_options(defaults, generation), "a conversation")
        if stream:
            check_streams(options, 1)
        check_prompt(network, self.processor, request.text, options.max_new_tokens)
        conversation, address = self._conversation, image if isinstance(image, str) and is_address(image) else ""
        goes_on = conversation is not None and bool(turns) and bool(address) and conversation.address == address
        pixels = conversation.pixel_values if conversation is not None and goes_on else self.processor.image(image)
        with torch.inference_mode(), random_state(seed, self.device), suitable_autocast(network):
            if conversation is None or not conversation.is_about(network, pixels):
                self._conversation = conversation = Conversation(network, self.processor, pixels)
            conversation.address = address
            if not stream:
                return prompts.first_answer(template, conversation.generate(request, options))
            steps = conversation.generate_stepwise(request, options)
        return self._parts(steps, conversation.decode, seed, until=prompts.lead(template))

    def generate(
        self,
        pixel_values: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Ids of texts about images, with the names and meanings of transformers; see `transformers_calls`.

        `caption` and `answer` take images and give texts.

        Args:
            pixel_values: `(B, 3, H, W)`, as `processor(images, text)` gives it, with the others.
            input_ids: `(B, S)`, int64, of prompts, or None.
            attention_mask: `(B, S)`, 1 = real token.
            **options: `max_new_tokens` (20), `max_length`, `num_beams` (1), `do_sample`, `top_k` (50 when sampling),
                `top_p`, `temperature`, `num_return_sequences`, …

        Returns:
            `(B * num_return_sequences, T)`, int64; without an encoder the prompt comes first.

        Raises:
            ConfigError: if ids or options cannot be used, or this is no generative model.
        """
        return generate_ids(self, pixel_values, input_ids, attention_mask, **options)

    def __call__(self, *inputs: object, **options: object) -> NoReturn:
        """Refuse what transformers' models take, and say what does it here.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "a loaded model is not called: match(images, texts) gives the scores of matching (itm) and contrast (itc), "
            "generate(**inputs) ids of texts, embed(images) features; to train, see b2.train"
        )

    def match(self, images: ImageInputs, texts: str | Sequence[str], *, batch_size: int = AT_ONCE) -> MatchScores:
        """Score each of N images with each of M texts, by the formulas of training.

        Args:
            images: The images.
            texts: Cleaned and cut as in training.
            batch_size: Images at once.

        Returns:
            `itc` and `itm`, each `(N, M)`, on the CPU.

        Raises:
            ConfigError: if a text is empty, or the model reads no texts.
            ShardError: naming a file that is no readable image.

        Source: BLIP-2, section 3.2.
        """
        network = self.image_text("match")
        inputs, lines = listed(images), [texts] if isinstance(texts, str) else list(texts)
        with torch.inference_mode(), suitable_autocast(network):
            return match_all(network, self.processor, inputs, lines, batch_size)

    def embed(
        self, images: ImageInputs | None = None, texts: str | Sequence[str] | None = None, *, batch_size: int = AT_ONCE
    ) -> dict[str, Tensor]:
        """Features of N images, N texts, or N pairs; see `evaluation.embedding` for their names and shapes.

        Args:
            images: The images, or None.
            texts: One for each image, or one for all; or None.
            batch_size: Images or texts at once.

        Returns:
            Tensors of N rows by name, on the CPU.

        Raises:
            ConfigError: if images and texts are no pairs, a text is empty, or the model reads no texts.
            ShardError: naming a file that is no readable image.

        Source: `extract_features` of BLIP-2's released code.
        """
        inputs = None if images is None else listed(images)
        times = 1 if inputs is None else len(inputs)
        lines = [texts] * times if isinstance(texts, str) else None if texts is None else list(texts)
        if lines is not None:
            self.image_text("embed of texts")
        count = paired(inputs, lines)
        parts: list[dict[str, Tensor]] = []
        with torch.inference_mode(), suitable_autocast(self.network):
            for rows in batches(count, batch_size):
                pixels = None if inputs is None else self.processor.images(inputs[rows]).to(self.device)
                parts.append(self._features(pixels, None if lines is None else lines[rows]))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _features(self, pixel_values: Tensor | None, texts: Sequence[str] | None) -> dict[str, Tensor]:
        if self.network.matches_texts:
            return image_text_features(self.image_text("embed"), self.processor, pixel_values, texts)
        assert pixel_values is not None
        return generative_features(self.generative("embed"), pixel_values)

    def _write(
        self,
        what: str,
        inputs: Sequence[ImageInput],
        requests: Sequence[Prompt],
        defaults: dict[str, Any],
        given: dict[str, Any],
        batch_size: int,
        seed: int | None,
        stream: bool,
    ) -> list[str] | Iterator[str]:
        network, options = self.generative(what), generation_options(defaults | streaming_defaults(stream), given)
        if stream:
            check_streams(options, len(inputs))
            with suitable_autocast(network):
                steps, decode = stream_text(network, self.processor, inputs[0], requests[0], options)
            return self._parts(steps, decode, seed)
        with random_state(seed, self.device), suitable_autocast(network):
            return generate_texts(network, self.processor, inputs, requests, options, batch_size)

    def _parts(
        self, steps: Iterator[Tensor], decode: Callable[[Tensor], str], seed: int | None, until: str = ""
    ) -> Iterator[str]:
        words = bool(getattr(self.processor.tokenizer, "clean_up_tokenization_spaces", False))
        return text_parts(steps, decode, self.network, seed, suitable_autocast, whole_words=words, until=until)
