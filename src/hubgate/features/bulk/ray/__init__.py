"""Jobs on many machines: the splits of an input are Ray tasks, and each writes one file of the output.

    OUT/
        _job.json                        the job: its task, its model, its input files and their splits
        part-000000008192.parquet        the vectors of the split that begins with row 8,192, its totals and failed rows
        _failed.jsonl                    all failed rows, when the job is done
        _SUCCESS                         the totals, when the job is done

A **part** is the record of its split: it is created whole, and never replaced (`storage.py`). What exists is done; what
does not exist is done again. So nothing else has to be kept, and whatever dies takes at most its unfinished parts along.

Only `cluster.py` imports Ray. What runs on the cluster are plain functions (`tasks.py`).
"""
