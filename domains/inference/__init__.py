"""Generations: asked, checked, resolved, computed. Knows no torch; `on_device` does.

Asked: `generation` (the request and the resolved request), `fields` (what is served), `limits` (ranges), `samplers` (the
samplers and sigma schedules).

Checked and resolved: `check` (all that is wrong with a request), `resolve` (each choice that it left open).

Told: `outcome` (reports of a running generation), `manifest` and `a1111` (what a picture's file says about itself).

Computed: `on_device`, in a worker.
"""
