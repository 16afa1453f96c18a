"""Bulk jobs: a file of texts in, a file of vectors out, and nothing lost however the job ends.

    input → rows → shards → asked → parts → output

A **shard** is a run of rows that is asked in one request. When it is answered, its vectors are appended to the file of
the **parts**, and then one line in the **manifest** says that the shard is done, and where its part stands. That line is
the only truth: what it names is never asked again, what it does not name never happened. Parts are joined, in the order
of the input, while others are still asked; the output takes its name when all are.

Nothing here knows HTTP: who embeds is behind a port (`hubgate.jobs.rows`), and so are input and output.
"""
