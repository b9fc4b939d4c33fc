select
    a.agent_id,
    a.agent_name,
    a.first_call_date,
    a.last_call_date,
    sum(d.calls) as calls,
    sum(d.answered) as answered,
    sum(d.outbound) as outbound,
    sum(d.talk_seconds) as talk_seconds,
    sum(d.handle_seconds) as handle_seconds,
    max(d.longest_talk_seconds) as longest_talk_seconds,
    count(*) as days_with_calls
from {{ source('callhistory', 'agent_daily') }} as d
join {{ source('callhistory', 'agents') }} as a on a.agent_id = d.agent_id
group by a.agent_id, a.agent_name, a.first_call_date, a.last_call_date
