"""The settings of a tokenizer that a model's files may choose.

transformers passes every setting on, and some name files that it then opens wherever they are: `vocab_file`, `vocab`,
`merges_file`, `tokenizer_file`, `fast_tokenizer_files`, `gguf_file`, `sp_model_kwargs`, `init_inputs` (read in its
`_from_pretrained` and `TokenizersBackend`, 4.57 to 5.23). So only known settings are passed on; the others are read as if
absent.
"""

from collections.abc import Mapping
from typing import Any

FILES = ("tokenizer_config.json", "special_tokens_map.json")
"""The files of settings. In all others a key is a word of the vocabulary."""
_NAMES = frozenset(
    {
        *("tokenizer_class", "added_tokens_decoder", "model_specific_special_tokens", "model_max_length"),
        *("model_input_names", "padding_side", "truncation_side", "legacy", "errors", "extra_ids"),
        *("clean_up_tokenization_spaces", "split_special_tokens", "spaces_between_special_tokens", "add_prefix_space"),
        *("do_lower_case", "do_basic_tokenize", "strip_accents", "keep_accents", "remove_space", "trim_offsets"),
    }
)
_ENDS = ("_token", "_tokens")
"""`bos_token`, `add_eos_token`, `additional_special_tokens`."""


def known_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that are not known."""
    return {name: value for name, value in settings.items() if name in _NAMES or name.endswith(_ENDS)}
