-- Counts are summed and divided last: the average of seven days' ratios would be another number.
with days as (
    select
        d.iso_year,
        d.iso_week,
        m.calls,
        m.offered,
        m.answered,
        m.abandoned,
        m.answered_in_time,
        m.answered_queue_seconds,
        m.answered_handle_seconds,
        case when m.is_complete then 1 else 0 end as complete_days
    from {{ source('callhistory', 'daily_metrics') }} as m
    join {{ source('callhistory', 'dates') }} as d on d.call_date = m.call_date
)

select
    iso_year,
    iso_week,
    iso_year * 100 + iso_week as iso_year_week,
    count(*) as days,
    sum(complete_days) as complete_days,
    sum(calls) as calls,
    sum(offered) as offered,
    sum(answered) as answered,
    sum(abandoned) as abandoned,
    sum(answered_in_time) * 1.0 / nullif(sum(answered) + sum(abandoned), 0) as service_level,
    sum(abandoned) * 1.0 / nullif(sum(offered), 0) as abandonment_rate,
    sum(answered_queue_seconds) * 1.0 / nullif(sum(answered), 0) as asa_seconds,
    sum(answered_handle_seconds) * 1.0 / nullif(sum(answered), 0) as aht_seconds
from days
group by iso_year, iso_week
