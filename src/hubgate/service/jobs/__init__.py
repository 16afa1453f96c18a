"""Bulk jobs: a file of texts in, a file of vectors out, and nothing lost however the job ends.

    input → rows → shards → asked → parts → output

A **shard** is a run of rows that is asked in one request. When it is answered, its vectors are written to a part of
their own, renamed into place, and then one line in the **manifest** says that the shard is done. That line is the only
truth: what it names is never asked again, what it does not name never happened. At the end the parts are joined.

Nothing here knows HTTP: who embeds is behind a port (`hubgate.service.jobs.rows`), and so are input and output.
"""
