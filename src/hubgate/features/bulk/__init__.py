"""Bulk jobs: a file of texts in, a file of vectors out. A job that is killed continues where it stopped.

    input → rows → shards → requests → shard file → output

A **shard** is a run of rows that is sent in one request. Its vectors are appended to the shard file; then one line in the
**manifest** marks it done and says where its vectors are. Only that line counts: a shard in the manifest is never
requested again, and what a crash left of any other is never read. When all shards are done, the output is written from
the shard file, in the order of the input, and appears whole.

`engine/` knows no HTTP: the embedder, the input and the output are behind protocols (`engine/rows.py`).
"""
