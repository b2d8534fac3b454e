"""Tells what weights are (kind, family, variant) from names and shapes of tensors, with the evidence. Reads no file.

`detect` is the entry. `evidence` has its values. Tables of networks: `vaes`, `encoders`, `controls`, `pictures`, searched
by `network`. Rules of their own: `denoisers` (alone and in checkpoints), `lora_names`, `lora_base` and `loras`,
`embeddings` (textual inversion), `classifiers` (by their labels), `header_words` (claims of the metadata).
"""
