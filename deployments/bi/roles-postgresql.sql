-- Two roles that only read, for BI tools. Neither sees rejected rows or what the export notes for itself.
--   callhistory_figures  figures: no column of these relations tells of a person
--   callhistory_people   the same, and numbers, names and single calls
-- Run it as the user that exports, and again after each upgrade: a view that was made anew has lost its rights.
-- A user who may create roles has to run the first two statements, where the exporting one may not.
-- Then, for a user of a BI tool:  GRANT callhistory_figures TO bi_user;
DO $$ BEGIN CREATE ROLE callhistory_figures NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE callhistory_people NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
-- With CALLHISTORY_WAREHOUSE_SCHEMA set, that schema: also SET search_path = it.
GRANT USAGE ON SCHEMA public TO callhistory_figures, callhistory_people;
GRANT SELECT ON metric_parameters, completeness, late_changes_by_age, dates, daily_metrics, hourly_metrics, interval_metrics, number_daily, campaign_daily, first_contact_resolution, concurrency_daily TO callhistory_figures;
GRANT SELECT ON metric_parameters, completeness, late_changes_by_age, dates, daily_metrics, hourly_metrics, interval_metrics, number_daily, campaign_daily, first_contact_resolution, concurrency_daily, calls, call_participants, call_versions, recordings, calls_with_live, call_facts, agent_daily, agents, repeat_calls, missed_call_recovery, missed_calls_to_recover TO callhistory_people;
