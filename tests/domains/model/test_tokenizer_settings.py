"""Which settings a model's files may choose for its tokenizer."""

import pytest

from domains.model.tokenizer_settings import known_settings


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("model_max_length", True),
        ("bos_token", True),
        ("additional_special_tokens", True),
        ("vocab_file", False),
        ("tokenizer_file", False),
        ("bos_token_file", False),
        ("init_inputs", False),
    ],
)
def test_settings_that_could_name_a_file_are_left_out(name: str, known: bool) -> None:
    assert known_settings({name: "/etc/passwd"}) == ({name: "/etc/passwd"} if known else {})
