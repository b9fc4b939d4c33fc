-- Three roles that only read, for BI tools. None sees rejected rows or what the export notes for itself.
--   callhistory_figures  figures: no column of these relations tells of a person
--   callhistory_masked   the same, and single calls with masked numbers, names and addresses
--   callhistory_people   figures, and single calls with numbers and names
-- Run it as the user that exports, and again after each upgrade: a view that was made anew has lost its rights.
-- A user who may create roles has to run the first three statements, where the exporting one may not.
-- Then, for a user of a BI tool:  GRANT callhistory_figures TO bi_user;
DO $$ BEGIN CREATE ROLE callhistory_figures NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE callhistory_masked NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE callhistory_people NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
-- With CALLHISTORY_WAREHOUSE_SCHEMA set, that schema: also SET search_path = it.
GRANT USAGE ON SCHEMA public TO callhistory_figures, callhistory_masked, callhistory_people;
-- What an earlier version gave goes.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM callhistory_figures, callhistory_masked, callhistory_people;
GRANT SELECT ON metric_parameters, completeness, late_changes_by_age, dates, daily_metrics, hourly_metrics, interval_metrics, campaign_daily, first_contact_resolution, concurrency_daily TO callhistory_figures;
GRANT SELECT ON metric_parameters, completeness, late_changes_by_age, dates, daily_metrics, hourly_metrics, interval_metrics, campaign_daily, first_contact_resolution, concurrency_daily, calls_masked, call_participants_masked, call_versions_masked, calls_with_live_masked, call_facts_masked, number_daily_masked, agent_daily_masked, agents_masked, repeat_calls_masked, missed_call_recovery_masked, missed_calls_to_recover_masked TO callhistory_masked;
GRANT SELECT ON metric_parameters, completeness, late_changes_by_age, dates, daily_metrics, hourly_metrics, interval_metrics, campaign_daily, first_contact_resolution, concurrency_daily, calls, call_participants, call_versions, recordings, calls_with_live, call_facts, number_daily, agent_daily, agents, repeat_calls, missed_call_recovery, missed_calls_to_recover TO callhistory_people;
