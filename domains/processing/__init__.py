"""Jobs: the front process accepts, queues, runs and reports long work. An arrow is an import.

submit.py, dispatcher.py  the way in: checks and stores work; starts it on the lanes
branches.py               continues jobs from the checkpoints of others
generation_resolver.py    resolves the request of a generation to the work of a job
conditioning_preview.py   how the inputs of a generation are read, without making a picture
mask_preview.py           what a mask covers
control_preview.py        control maps, as the networks see them
shown_pictures.py         keeps the pictures that previews show
reproduction.py           makes pictures again from what their files say
event_snapshots.py        things in events, as the log of changes stores them
places.py                 where work may run: the devices that a request names, and those that can
  └► front/     work that the front process carries out by itself
  └► attempts/  one attempt at a job
  └► inputs/    pictures, masks, maps and latents that generations read
  └► memory/    the memory that jobs and blobs need
  └► devices/   checks, settings, figures and hot plug of devices
    └► lanes/     the queue, and the lanes on which jobs run
    └► sessions/  an orchestrator's jobs, share, limits and events
      └► jobs/    what a job is, on disk and in memory; the kinds of work
  └► workers/   what the front needs of a worker: orders, reports, the blobs it holds
on_device/  the worker's own side: its loop of orders

Each folder imports only from those below it.
"""
