"""The gRPC server, its transports and its worker processes. An arrow is an import.

app.py              runs the server from its start to a signal
server.py           all objects, built in order; with background.py, leaving.py (open streams at the end)
  └► device/, memory/, model/, inference/, postprocessing/, processing/   one folder a domain: calls and messages
  └► services.py      the table of services
  └► worker/          worker processes;  lifetime.py ends them with the server
  └► stdio/           calls over a pipe
cli/                the `deviceops` program, which knows the contract alone

Around every call: register.py (one table of methods) wraps it in guard.py, request_check.py, unserved.py, unreadable.py,
once.py and heartbeat.py; errors.py answers errors, scrub.py and fitted.py clean and shorten texts.
Values of many messages: convert.py, paging.py, time_span.py.
Around the process: settings.py, users.py, descriptors.py, version.py, listen.py (ports), health.py, reflection.py, log.py
with log_form.py, log_writer.py and log_capture.py.
"""
