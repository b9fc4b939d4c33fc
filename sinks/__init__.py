"""Where rows go: the raw copy, the Parquet lake and the SQL warehouse, all with one meaning of "replace a window"."""
