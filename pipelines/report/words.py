"""Every word of the report, in English and Vietnamese."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.report.language import Language
from pipelines.watch.status import DayState
from transforms.metrics import RATIOS, ratio_description

LABELS: Mapping[str, tuple[str, str]] = {
    "call_date": ("Day", "Ngày"),
    "call_hour": ("Hour", "Giờ"),
    "weekday": ("Weekday", "Thứ"),
    "state": ("State", "Trạng thái"),
    "calls": ("Calls", "Cuộc gọi"),
    "inbound": ("Inbound", "Gọi vào"),
    "outbound": ("Outbound", "Gọi ra"),
    "internal": ("Internal", "Nội bộ"),
    "offered": ("Offered", "Vào hàng chờ"),
    "answered": ("Answered", "Đã trả lời"),
    "missed": ("Missed", "Gọi nhỡ"),
    "abandoned": ("Abandoned", "Khách bỏ chờ"),
    "outbound_answered": ("Outbound answered", "Gọi ra được nghe"),
    "customers": ("Different callers", "Số khách gọi vào"),
    "unknown_direction": ("Of unknown direction", "Không rõ chiều gọi"),
    "unknown_status": ("Of unknown status", "Không rõ kết quả"),
    "answered_without_talk": ("Answered without talk time", "Đã trả lời, không có thời gian nói"),
    "other_inbound": ("Other inbound", "Gọi vào khác"),
    "service_level": ("Service level", "Mức dịch vụ"),
    "service_level_abandons_ignored": ("abandons ignored", "không tính cuộc bỏ chờ"),
    "service_level_abandons_in_time_met": ("abandons in time met", "bỏ chờ trong hạn được tính đạt"),
    "service_level_short_abandons_ignored": ("short abandons ignored", "không tính bỏ chờ sớm"),
    "service_level_of_offered": ("of offered", "trên số vào hàng chờ"),
    "abandonment_rate": ("Abandonment rate", "Tỷ lệ bỏ chờ"),
    "asa_seconds": ("Average speed of answer", "Thời gian chờ trung bình (ASA)"),
    "aht_seconds": ("Average handle time", "Thời gian xử lý trung bình (AHT)"),
    "acw_average_seconds": ("Average after-call work", "Xử lý sau cuộc gọi trung bình (ACW)"),
    "hold_share": ("Hold share", "Tỷ lệ giữ máy"),
    "voicemail_rate": ("Voicemail rate", "Tỷ lệ để lại lời nhắn"),
    "ivr_containment": ("IVR containment", "Tỷ lệ kết thúc ở IVR"),
    "outbound_connect_rate": ("Outbound connect rate", "Tỷ lệ kết nối gọi ra"),
    "agent_id": ("Agent id", "Mã điện thoại viên"),
    "agent_name": ("Agent", "Điện thoại viên"),
    "talk_seconds": ("Talk time", "Thời gian nói"),
    "hold_seconds": ("Hold time", "Thời gian giữ máy"),
    "acw_seconds": ("After-call work", "Xử lý sau cuộc gọi"),
    "handle_seconds": ("Handle time", "Thời gian xử lý"),
    "stringee_number": ("Number", "Đầu số"),
    "campaign_name": ("Campaign", "Chiến dịch"),
    "customer_number_e164": ("Customer's number", "Số khách hàng"),
    "contact_name": ("Contact", "Khách hàng"),
    "missed_calls": ("Missed calls", "Số lần nhỡ"),
    "first_missed_at": ("First missed", "Nhỡ lần đầu"),
    "last_missed_at": ("Last missed", "Nhỡ lần cuối"),
    "callback_attempts": ("Callback attempts", "Số lần gọi lại"),
    "recovered": ("Recovered", "Đã liên lạc lại"),
    "called_back": ("Called back", "Đã gọi lại"),
    "recovery_rate": ("Recovery rate", "Tỷ lệ liên lạc lại"),
    "average_recovery_seconds": ("Average time to recover", "Thời gian liên lạc lại trung bình"),
    "repeat_calls": ("Repeat calls", "Cuộc gọi lặp lại"),
    "repeat_customers": ("Repeat callers", "Khách gọi lặp lại"),
    "last_call_date": ("Last repeat call", "Lần lặp lại cuối"),
    "answered_calls": ("Answered calls of known numbers", "Cuộc đã trả lời có số khách"),
    "followed_up": ("Called in again", "Khách phải gọi lại"),
    "resolved": ("Resolved", "Đã giải quyết"),
    "resolution_rate": ("First-contact resolution (proxy)", "Giải quyết ngay lần đầu (ước lượng)"),
    "peak_calls": ("Most calls at once", "Nhiều cuộc gọi cùng lúc nhất"),
    "peak_at": ("First reached at", "Lần đầu đạt lúc"),
    "status": ("Status", "Trạng thái"),
    "recordings": ("Recordings", "Bản ghi âm"),
}
"""What a column or a figure is called, by its name in the queries."""

DEFINITIONS: Mapping[str, str] = {
    "service_level": "Tỷ lệ cuộc gọi được trả lời trong service_level_seconds trên tổng số cuộc đã trả lời và bỏ chờ.",
    "service_level_abandons_ignored": "Mức dịch vụ không tính các cuộc bỏ chờ.",
    "service_level_abandons_in_time_met": "Mức dịch vụ trong đó cuộc bỏ chờ trong service_level_seconds được tính là "
    "đạt.",
    "service_level_short_abandons_ignored": "Mức dịch vụ không tính các cuộc bỏ chờ sớm.",
    "service_level_of_offered": "Mức dịch vụ trên mọi cuộc vào hàng chờ.",
    "abandonment_rate": "Tỷ lệ cuộc vào hàng chờ mà khách bỏ chờ.",
    "asa_seconds": "Thời gian chờ trung bình của các cuộc gọi vào đã trả lời.",
    "aht_seconds": "Thời gian xử lý trung bình của các cuộc gọi vào đã trả lời. Nhà cung cấp không công bố thời gian "
    "nói có gồm giữ máy hay không: talk_includes_hold cho biết cách tính.",
    "acw_average_seconds": "Thời gian xử lý trung bình sau cuộc gọi của các cuộc gọi vào đã trả lời.",
    "hold_share": "Thời gian giữ máy so với thời gian nói của các cuộc gọi vào đã trả lời.",
    "voicemail_rate": "Tỷ lệ cuộc gọi nhỡ có lời nhắn thoại.",
    "ivr_containment": "Tỷ lệ cuộc gọi vào kết thúc ở IVR. Ước lượng: gồm cả khách tự gác máy.",
    "outbound_connect_rate": "Tỷ lệ cuộc gọi ra được nghe.",
}
"""What each ratio means, in Vietnamese; in English it is as the metric is declared."""

STATES: Mapping[DayState | None, tuple[str, str]] = {
    DayState.SETTLED: ("complete, settled", "đầy đủ, đã chốt"),
    DayState.COMPLETE: ("complete", "đầy đủ"),
    DayState.PROVISIONAL: ("provisional", "tạm thời"),
    DayState.RUNNING: ("being read", "đang đọc"),
    DayState.DISPUTED: ("disputed", "còn nghi vấn"),
    DayState.FAILED: ("failed", "lỗi"),
    DayState.MISSING: ("missing", "còn thiếu"),
    None: ("not exported", "không xuất"),
}
MARKS: Mapping[DayState | None, str] = {
    DayState.SETTLED: "",
    DayState.COMPLETE: "",
    DayState.PROVISIONAL: "○",
    DayState.RUNNING: "○",
    DayState.DISPUTED: "?",
    DayState.FAILED: "×",
    DayState.MISSING: "×",
    None: "×",
}
"""What stands at a day in a chart."""

RECORDING_STATES: Mapping[str, tuple[str, str]] = {
    "archived": ("archived", "đã lưu trữ"),
    "expired": ("deleted for its age", "đã xóa khi hết hạn lưu trữ"),
    "deleted_at_source": ("archived, deleted at the provider", "đã lưu trữ, đã xóa ở nhà cung cấp"),
    "pending": ("to be fetched", "chờ tải"),
    "not_ready": ("not ready yet", "chưa sẵn sàng"),
    "missing": ("missing", "bị thiếu"),
    "none": ("there is none", "không có"),
    "failed": ("failed", "lỗi"),
}

TEXTS: Mapping[str, tuple[str, str]] = {
    "title": ("Call report", "Báo cáo cuộc gọi"),
    "range": ("{first} to {last}", "{first} đến {last}"),
    "written": (
        "From the warehouse at {at}, time zone {timezone}. Complete up to {newest}.",
        "Từ kho dữ liệu lúc {at}, múi giờ {timezone}. Đầy đủ đến {newest}.",
    ),
    "skip": ("To the figures", "Đến nội dung"),
    "contents": ("Contents", "Mục lục"),
    "completeness": ("How complete the data is", "Dữ liệu đầy đủ đến đâu"),
    "all_proven": (
        "Every day is proven complete: the provider's own count, the files and the warehouse agree, call for call.",
        "Mọi ngày đều được chứng minh là đầy đủ: số đếm của nhà cung cấp, các tệp và kho dữ liệu khớp từng cuộc gọi.",
    ),
    "not_proven": (
        "{count} of {days} days are not proven complete. Their figures can still change, or calls may be missing.",
        "{count} trong {days} ngày chưa được chứng minh là đầy đủ. Số liệu có thể còn thay đổi hoặc thiếu cuộc gọi.",
    ),
    "state_days": ("{state}: {days}", "{state}: {days}"),
    "marks": (
        "Pale, with a mark: ○ provisional or being read, ? disputed, × failed, missing or not exported.",
        "Màu nhạt có dấu: ○ tạm thời hoặc đang đọc, ? còn nghi vấn, × lỗi, thiếu hoặc không xuất.",
    ),
    "unknown": (
        "{unknown_status} calls have an unknown status and {unknown_direction} an unknown direction; "
        "{answered_without_talk} answered calls have no talk time.",
        "{unknown_status} cuộc gọi không rõ kết quả, {unknown_direction} không rõ chiều; "
        "{answered_without_talk} cuộc đã trả lời không có thời gian nói.",
    ),
    "glance": ("At a glance", "Tổng quan"),
    "compared": ("Compared with {first} to {last}.", "So với {first} đến {last}."),
    "not_compared": (
        "The days before are not all in the warehouse: nothing to compare with.",
        "Kỳ trước không có đủ trong kho dữ liệu: không có gì để so sánh.",
    ),
    "unproven_before": (
        "{count} of those days are not proven complete.",
        "{count} ngày trong kỳ trước chưa được chứng minh là đầy đủ.",
    ),
    "points": ("{change} points", "{change} điểm %"),
    "percent": ("{change} %", "{change} %"),
    "no_change": ("no change", "không đổi"),
    "by_day": ("Calls by day", "Cuộc gọi theo ngày"),
    "by_hour": ("Calls by hour", "Cuộc gọi theo giờ"),
    "by_hour_text": ("Offered calls of the days together, by local hour.", "Cuộc vào hàng chờ cộng dồn theo giờ."),
    "not_answered": ("Offered, not answered", "Vào hàng chờ, không được trả lời"),
    "by_weekday": ("Offered calls by weekday and hour", "Cuộc vào hàng chờ theo thứ và giờ"),
    "by_weekday_text": ("The stronger the colour, the more calls.", "Màu càng mạnh, càng nhiều cuộc gọi."),
    "service": ("Service level and waiting", "Mức dịch vụ và thời gian chờ"),
    "service_text": (
        "Answered within {service_level_seconds} seconds, among answered and abandoned calls. Other definitions give "
        "other values for the same calls:",
        "Trả lời trong {service_level_seconds} giây, trên các cuộc đã trả lời và bỏ chờ. Cách tính khác cho kết quả "
        "khác với cùng các cuộc gọi:",
    ),
    "agents": ("Agents", "Điện thoại viên"),
    "numbers": ("Our numbers", "Đầu số"),
    "no_number": ("(number not known)", "(không rõ đầu số)"),
    "campaigns": ("Campaigns", "Chiến dịch"),
    "recovery": ("Missed calls", "Cuộc gọi nhỡ"),
    "recovery_text": (
        "Recovered: an answered call with the number, in or out, began within {recovery_hours} hours after.",
        "Đã liên lạc lại: có cuộc được nghe với số đó, vào hoặc ra, trong {recovery_hours} giờ sau.",
    ),
    "to_recover": ("Missed, and not spoken with since", "Khách gọi nhỡ chưa được liên lạc"),
    "to_recover_text": (
        "A work list as of {at}, over the newest {recovery_list_days} days; it does not depend on the days above.",
        "Danh sách cần gọi lúc {at}, trong {recovery_list_days} ngày gần nhất; không phụ thuộc các ngày ở trên.",
    ),
    "repeat": ("Repeat callers", "Khách gọi lặp lại"),
    "repeat_text": (
        "Inbound calls whose number had called in within {repeat_days} days before.",
        "Cuộc gọi vào từ số đã gọi vào trong {repeat_days} ngày trước đó.",
    ),
    "resolution": ("First-contact resolution (proxy)", "Giải quyết ngay lần đầu (ước lượng)"),
    "resolution_text": (
        "Answered calls that the number did not follow with another within {fcr_days} days. It does not say whether "
        "the customer was content.",
        "Cuộc đã trả lời mà số đó không gọi lại trong {fcr_days} ngày. Không nói lên khách có hài lòng hay không.",
    ),
    "young": (
        "{days} of these days are too recent: their figure can still fall.",
        "{days} ngày còn quá mới: tỷ lệ có thể còn giảm.",
    ),
    "concurrency": ("Calls at once", "Cuộc gọi đồng thời"),
    "recordings": ("Recordings of these days", "Bản ghi âm của các ngày này"),
    "definitions": ("Definitions", "Định nghĩa"),
    "definitions_text": (
        "Every figure is a value of a query that callhistory dictionary prints.",
        "Mọi số liệu là kết quả của truy vấn mà callhistory dictionary in ra.",
    ),
    "parameters": ("Parameters", "Tham số"),
    "table_of": ("Table: {title}", "Bảng: {title}"),
    "first_rows": (
        "The first {shown} of {count} rows; --csv has them all.",
        "{shown} dòng đầu trong {count} dòng; --csv có đủ.",
    ),
    "nothing": ("There were none.", "Không có."),
    "copy": ("Copy table", "Chép bảng"),
    "copied": ("Copied", "Đã chép"),
    "sort": ("Sort by {label}", "Sắp xếp theo {label}"),
}
"""The sentences of the page; what stands in braces is put in."""


def definition(name: str, language: Language) -> str:
    """Return what a ratio means."""
    ratio = next(ratio for ratio in RATIOS if ratio.name == name)
    if language is Language.ENGLISH:
        return ratio_description(ratio)
    return f"{DEFINITIONS[name]} Công thức: {ratio.formula}."


def _in(language: Language, words: tuple[str, str]) -> str:
    return words[list(Language).index(language)]


class Words:
    """The words of one language."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def __call__(self, name: str, /, **values: object) -> str:
        """Return a sentence, with ``values`` in its braces."""
        return _in(self.language, TEXTS[name]).format(**values)

    def label(self, name: str) -> str:
        """Return what a column or a figure is called."""
        return _in(self.language, LABELS[name])

    def state(self, state: DayState | None) -> str:
        """Return where a day stands."""
        return _in(self.language, STATES[state])

    def recording(self, status: str) -> str:
        """Return what has become of a recording; a status that has no words stands for itself."""
        return _in(self.language, RECORDING_STATES.get(status, (status, status)))
