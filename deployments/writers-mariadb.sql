-- Who runs callhistory, with no more rights than it needs.
--   callhistory_writer    makes the tables and views and fills them: every command
--   callhistory_archiver  only `callhistory recordings archive` and what else is about recordings, in tables that are there
-- Run it as an administrator in the warehouse's database, the second part once the first export is done.
-- Both are users: a view is read with the rights of who made it, and those of a role do not count then.
-- Before:  CREATE USER callhistory_writer IDENTIFIED BY '...';  CREATE USER callhistory_archiver IDENTIFIED BY '...';
-- In place of callhistory.*, the warehouse's database.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, CREATE VIEW, SHOW VIEW, CREATE TEMPORARY TABLES ON callhistory.* TO callhistory_writer;
-- The second part. Without some right on a relation, MariaDB says that it is not there.
GRANT SELECT ON calls TO callhistory_archiver;
GRANT SELECT ON export_windows TO callhistory_archiver;
GRANT SELECT ON recordings TO callhistory_archiver;
GRANT SELECT ON pipeline_state TO callhistory_archiver;
GRANT SELECT ON metric_parameters TO callhistory_archiver;
GRANT SELECT ON erasures TO callhistory_archiver;
GRANT SELECT ON request_budget TO callhistory_archiver;
GRANT INSERT, UPDATE, DELETE ON recordings TO callhistory_archiver;
GRANT INSERT, UPDATE, DELETE ON pipeline_state TO callhistory_archiver;
GRANT INSERT, UPDATE, DELETE ON request_budget TO callhistory_archiver;
GRANT REFERENCES ON call_participants TO callhistory_archiver;
GRANT REFERENCES ON rejected_rows TO callhistory_archiver;
GRANT REFERENCES ON certificates TO callhistory_archiver;
GRANT REFERENCES ON call_versions TO callhistory_archiver;
GRANT REFERENCES ON late_changes TO callhistory_archiver;
GRANT REFERENCES ON source_fields TO callhistory_archiver;
GRANT REFERENCES ON live_calls TO callhistory_archiver;
GRANT REFERENCES ON calls_with_live TO callhistory_archiver;
GRANT REFERENCES ON completeness TO callhistory_archiver;
GRANT REFERENCES ON late_changes_by_age TO callhistory_archiver;
GRANT REFERENCES ON call_facts TO callhistory_archiver;
GRANT REFERENCES ON dates TO callhistory_archiver;
GRANT REFERENCES ON daily_metrics TO callhistory_archiver;
GRANT REFERENCES ON hourly_metrics TO callhistory_archiver;
GRANT REFERENCES ON interval_metrics TO callhistory_archiver;
GRANT REFERENCES ON number_daily TO callhistory_archiver;
GRANT REFERENCES ON campaign_daily TO callhistory_archiver;
GRANT REFERENCES ON agent_daily TO callhistory_archiver;
GRANT REFERENCES ON agents TO callhistory_archiver;
GRANT REFERENCES ON repeat_calls TO callhistory_archiver;
GRANT REFERENCES ON missed_call_recovery TO callhistory_archiver;
GRANT REFERENCES ON missed_calls_to_recover TO callhistory_archiver;
GRANT REFERENCES ON first_contact_resolution TO callhistory_archiver;
GRANT REFERENCES ON concurrency_daily TO callhistory_archiver;
GRANT REFERENCES ON calls_masked TO callhistory_archiver;
GRANT REFERENCES ON call_participants_masked TO callhistory_archiver;
GRANT REFERENCES ON call_versions_masked TO callhistory_archiver;
GRANT REFERENCES ON calls_with_live_masked TO callhistory_archiver;
GRANT REFERENCES ON call_facts_masked TO callhistory_archiver;
GRANT REFERENCES ON number_daily_masked TO callhistory_archiver;
GRANT REFERENCES ON agent_daily_masked TO callhistory_archiver;
GRANT REFERENCES ON agents_masked TO callhistory_archiver;
GRANT REFERENCES ON repeat_calls_masked TO callhistory_archiver;
GRANT REFERENCES ON missed_call_recovery_masked TO callhistory_archiver;
GRANT REFERENCES ON missed_calls_to_recover_masked TO callhistory_archiver;
