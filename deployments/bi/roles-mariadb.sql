-- Three roles that only read, for BI tools. None sees rejected rows or what the export notes for itself.
--   callhistory_figures  figures: no column of these relations tells of a person
--   callhistory_masked   the same, and single calls with masked numbers, names and addresses
--   callhistory_people   figures, and single calls with numbers and names
-- Run it as the user that exports, and again after each upgrade: a view that was made anew has lost its rights.
-- The exporting user needs GRANT OPTION on its database; an administrator can run it as well.
-- Then, for a user of a BI tool:
--   GRANT callhistory_figures TO bi_user;  SET DEFAULT ROLE callhistory_figures FOR bi_user;
CREATE ROLE IF NOT EXISTS callhistory_figures;
CREATE ROLE IF NOT EXISTS callhistory_masked;
CREATE ROLE IF NOT EXISTS callhistory_people;
-- What an earlier version gave goes, in every database of this server: run it in each that has calls.
REVOKE ALL PRIVILEGES, GRANT OPTION FROM callhistory_figures;
REVOKE ALL PRIVILEGES, GRANT OPTION FROM callhistory_masked;
REVOKE ALL PRIVILEGES, GRANT OPTION FROM callhistory_people;
GRANT SELECT ON metric_parameters TO callhistory_figures;
GRANT SELECT ON completeness TO callhistory_figures;
GRANT SELECT ON late_changes_by_age TO callhistory_figures;
GRANT SELECT ON dates TO callhistory_figures;
GRANT SELECT ON daily_metrics TO callhistory_figures;
GRANT SELECT ON hourly_metrics TO callhistory_figures;
GRANT SELECT ON interval_metrics TO callhistory_figures;
GRANT SELECT ON campaign_daily TO callhistory_figures;
GRANT SELECT ON first_contact_resolution TO callhistory_figures;
GRANT SELECT ON concurrency_daily TO callhistory_figures;
GRANT SELECT ON metric_parameters TO callhistory_masked;
GRANT SELECT ON completeness TO callhistory_masked;
GRANT SELECT ON late_changes_by_age TO callhistory_masked;
GRANT SELECT ON dates TO callhistory_masked;
GRANT SELECT ON daily_metrics TO callhistory_masked;
GRANT SELECT ON hourly_metrics TO callhistory_masked;
GRANT SELECT ON interval_metrics TO callhistory_masked;
GRANT SELECT ON campaign_daily TO callhistory_masked;
GRANT SELECT ON first_contact_resolution TO callhistory_masked;
GRANT SELECT ON concurrency_daily TO callhistory_masked;
GRANT SELECT ON calls_masked TO callhistory_masked;
GRANT SELECT ON call_participants_masked TO callhistory_masked;
GRANT SELECT ON call_versions_masked TO callhistory_masked;
GRANT SELECT ON calls_with_live_masked TO callhistory_masked;
GRANT SELECT ON call_facts_masked TO callhistory_masked;
GRANT SELECT ON number_daily_masked TO callhistory_masked;
GRANT SELECT ON agent_daily_masked TO callhistory_masked;
GRANT SELECT ON agents_masked TO callhistory_masked;
GRANT SELECT ON repeat_calls_masked TO callhistory_masked;
GRANT SELECT ON missed_call_recovery_masked TO callhistory_masked;
GRANT SELECT ON missed_calls_to_recover_masked TO callhistory_masked;
GRANT SELECT ON metric_parameters TO callhistory_people;
GRANT SELECT ON completeness TO callhistory_people;
GRANT SELECT ON late_changes_by_age TO callhistory_people;
GRANT SELECT ON dates TO callhistory_people;
GRANT SELECT ON daily_metrics TO callhistory_people;
GRANT SELECT ON hourly_metrics TO callhistory_people;
GRANT SELECT ON interval_metrics TO callhistory_people;
GRANT SELECT ON campaign_daily TO callhistory_people;
GRANT SELECT ON first_contact_resolution TO callhistory_people;
GRANT SELECT ON concurrency_daily TO callhistory_people;
GRANT SELECT ON calls TO callhistory_people;
GRANT SELECT ON call_participants TO callhistory_people;
GRANT SELECT ON call_versions TO callhistory_people;
GRANT SELECT ON recordings TO callhistory_people;
GRANT SELECT ON calls_with_live TO callhistory_people;
GRANT SELECT ON call_facts TO callhistory_people;
GRANT SELECT ON number_daily TO callhistory_people;
GRANT SELECT ON agent_daily TO callhistory_people;
GRANT SELECT ON agents TO callhistory_people;
GRANT SELECT ON repeat_calls TO callhistory_people;
GRANT SELECT ON missed_call_recovery TO callhistory_people;
GRANT SELECT ON missed_calls_to_recover TO callhistory_people;
