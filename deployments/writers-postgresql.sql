-- Who runs callhistory, with no more rights than it needs.
--   callhistory_writer    makes the tables and views and fills them: every command
--   callhistory_archiver  only `callhistory recordings archive` and what else is about recordings, in tables that are there
-- Run it as an administrator in the warehouse's database, the second part once the first export is done.
-- Then, for a user of callhistory:  GRANT callhistory_writer TO exporter;
-- What a user makes is theirs: let one user do all exports.
DO $$ BEGIN CREATE ROLE callhistory_writer NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE callhistory_archiver NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
-- With CALLHISTORY_WAREHOUSE_SCHEMA set, that schema, made beforehand.
GRANT USAGE, CREATE ON SCHEMA public TO callhistory_writer;
-- The second part, as the user that exports:
GRANT USAGE ON SCHEMA public TO callhistory_archiver;
GRANT SELECT ON calls, export_windows, recordings, pipeline_state, metric_parameters, erasures, request_budget TO callhistory_archiver;
GRANT INSERT, UPDATE, DELETE ON recordings, pipeline_state, request_budget TO callhistory_archiver;
