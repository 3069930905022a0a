"""The verifier's tokenizer, and prompts of a file as it reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pdvsim.cell import PromptFile
from pdvsim.core import Request
from pdvsim.errors import InputError
from pdvsim.models import FoundModel, ModelShape
from pdvsim.prompt_file import Prompt, read_prompts
from realengine import toy

Said = str | list[dict[str, Any]]
Encode = Callable[[Said], list[int]]


@dataclass(frozen=True, slots=True)
class Tokenized:
    """The prompts of a file in tokens.

    Attributes:
        file: with the number of tokens of each.
        lines: where each stands in the file.
    """

    file: PromptFile
    lines: Sequence[int]
    tokens: Sequence[Sequence[int]] = field(repr=False)

    def place(self, index: int) -> str:
        """Where a prompt stands, for errors."""
        return f"{self.file.path}, line {self.lines[index]}"

    def check_vocabulary(self, size: int) -> None:
        """Refuse tokens that not all models know.

        Raises:
            InputError: naming the first prompt with such a token.
        """
        for index, tokens in enumerate(self.tokens):
            if max(tokens) >= size:
                raise InputError(
                    f"{self.place(index)}: has the token {max(tokens)}; the models share the first "
                    f"{size:,}"
                )

    def check_fits(self, requests: Iterable[Request], models: Iterable[ModelShape]) -> None:
        """Refuse requests whose prompt and output are too long.

        Raises:
            InputError: naming the first such prompt, its length and the model.
        """
        shortest = min(models, key=lambda model: model.longest_context_tokens)
        for request in requests:
            prompt, output = request.prompt_tokens, request.output_tokens
            if prompt + output > shortest.longest_context_tokens:
                raise InputError(
                    f"{self.place(request.id % len(self.tokens))}: a prompt of {prompt:,} tokens "
                    f"and {output:,} of output do not fit the context of {shortest.name} "
                    f"({shortest.longest_context_tokens:,})"
                )


def tokenized(file: PromptFile, verifier: FoundModel) -> Tokenized:
    """Read `file` with the tokenizer of `verifier`.

    Raises:
        InputError: no such file, no tokenizer, or a prompt that it cannot read.
    """
    prompts = read_prompts(file)
    encode = _encoder(verifier)
    tokens = []
    for prompt in prompts:
        where = f"{file.path}, line {prompt.line}"
        found = _encoded(encode, prompt, where)
        if not found:
            raise InputError(f"{where}: an empty prompt; it must have at least one token")
        tokens.append(found)
    counted = replace(file, tokens=tuple(map(len, tokens)))
    return Tokenized(counted, [prompt.line for prompt in prompts], tokens)


def _encoded(encode: Encode, prompt: Prompt, where: str) -> list[int]:
    try:
        return encode(prompt.said)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except Exception as error:  # chat templates are programs and raise what they like
        why = " ".join(str(error).split())
        raise InputError(f"{where}: the tokenizer cannot read it ({why})") from None


def _encoder(verifier: FoundModel) -> Encode:
    name, folder = verifier.shape.name, verifier.folder
    if folder is None:
        raise InputError(
            f"--prompts needs the tokenizer of a checkpoint; {name} is a shape with random weights"
        )
    if folder.resolve() == toy.VERIFIER.resolve():
        return _bytes_of
    return _of_checkpoint(name, folder)


def _bytes_of(said: Said) -> list[int]:
    """The toy pair's tokens are bytes."""
    if not isinstance(said, str):
        raise InputError("the toy models know no conversations ('messages'), text alone")
    return list(said.encode())


def _of_checkpoint(name: str, folder: Path) -> Encode:
    from transformers import AutoTokenizer, logging

    logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # it raises many kinds
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: transformers finds no tokenizer of {name} ({why})") from None

    def encode(said: Said) -> list[int]:
        if isinstance(said, str):
            found = tokenizer(said)["input_ids"]
        elif tokenizer.chat_template is None:
            raise InputError(f"the tokenizer of {name} has no chat template for 'messages'")
        else:
            found = tokenizer.apply_chat_template(
                said, add_generation_prompt=True, return_dict=False
            )
        return [int(token) for token in found]

    return encode
