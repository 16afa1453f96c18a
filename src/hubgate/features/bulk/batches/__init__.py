"""Files and batches of OpenAI's API: requests that the gateway answers in the background.

`files.py` has the files, `folder.py` their content on disk or in an object store, `batches.py` the batches and which of
them run, `run.py` one run of a batch, `rows.py` its input, `record.py` its answered requests on disk, and `webhook.py`
the message at its end.
"""
