"""What a bulk job does with its rows: cut into shards, sent, tried again, recorded."""
