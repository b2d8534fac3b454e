"""What generations read beside their models: pictures, masks, control maps, latents.

generation_files.py      all of them: named, kept for their job, given to the worker
input_pictures.py        pictures to start from, and masks
latent_files.py          latents to start from
control_pictures.py      the pictures that guide the layout, and the control maps made from them
image_prompt_pictures.py the pictures of IP-Adapters
region_pictures.py       the masks of regions
reference_pictures.py    the pictures that editing models read
picture_reader.py        reads pictures out of blobs, their pixels in a process of its own
"""
