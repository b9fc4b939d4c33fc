"""The invented people of a simulated call centre: agents, queues, campaigns and a pool of customers.

No number belongs to anyone we know of: mobiles count up from 8490 000 0000, landlines from 8424 7300 0000, and the
foreign ones come from the ranges that the United States (555-01xx) and Australia keep for fiction.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FAMILY_NAMES = ("Nguyễn", "Trần", "Lê", "Phạm", "Hoàng", "Huỳnh", "Phan", "Vũ", "Võ", "Đặng", "Bùi", "Đỗ", "Hồ", "Ngô")
MIDDLE_NAMES = ("Thị", "Văn", "Minh", "Ngọc", "Thanh", "Quốc", "Hữu", "Đức", "Bảo", "Khánh")
GIVEN_NAMES = (
    "Hương", "Dũng", "Lan", "Tuấn", "Phương", "Sơn", "Thảo", "Hùng", "Mai", "Đạt", "Trang", "Quân", "Yến", "Khôi",
    "Ngân", "Phúc", "Vy", "Thắng", "Quỳnh", "Long", "Hạnh", "Việt", "Diệp", "Cường", "Ánh",
)  # fmt: skip
COMPANIES = (
    "Công ty TNHH Ánh Dương", "Cửa hàng Hoa Sen", "Công ty CP Vận tải Sông Hồng", "Nhà sách Tuổi Trẻ",
    "Điện máy Thành Phố", "Công ty TNHH Thực phẩm Mùa Vàng", 'Quán "Cà phê & Trà"',
)  # fmt: skip
CAMPAIGNS = ("Chăm sóc khách hàng tháng 7", "Khảo sát hài lòng", "Nhắc lịch hẹn", "Ưu đãi mùa hè 🌞")
STRINGEE_NUMBERS = ("842473000001", "842473000002", "842873000001")
_AMERICAN = 12015550100
_AUSTRALIAN = (61491570156, 61491570157, 61491570158, 61491570159, 61491570110)


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent: the user id in the portal, the name as typed there, and the e-mail address."""

    account: str
    name: str
    email: str


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text.replace("Đ", "D").replace("đ", "d"))
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter)).lower()


def agents(count: int, rng: np.random.Generator) -> list[Agent]:
    """Return ``count`` agents with distinct accounts and addresses."""
    family, middle, given = (
        rng.integers(len(names), size=count) for names in (FAMILY_NAMES, MIDDLE_NAMES, GIVEN_NAMES)
    )
    team = []
    for number in range(count):
        first, last = GIVEN_NAMES[given[number]], FAMILY_NAMES[family[number]]
        email = f"{_plain(first)}.{_plain(last)}{number + 1}@example.com"
        team.append(Agent(f"user_{number + 1}", f"{last} {MIDDLE_NAMES[middle[number]]} {first}", email))
    return team


def customer_numbers(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return ``count`` phone numbers, digits with country code: mostly mobiles, some landlines, a few foreign."""
    order = np.arange(count, dtype=np.int64)
    numbers = 84_900_000_000 + order % 100_000_000
    kind = rng.random(count)
    landline = kind < 0.06
    numbers[landline] = 842_473_001_000 + order[landline] % 8_000
    foreign = kind > 0.985
    australian = np.array(_AUSTRALIAN, dtype=np.int64)[order % len(_AUSTRALIAN)]
    numbers[foreign] = np.where(order % 4 == 0, australian, _AMERICAN + order % 100)[foreign]
    return numbers


def contact_name(customer: int) -> str | None:
    """Return the name under which the portal's address book knows a customer, or None: two in five are known."""
    if customer % 5 > 1:
        return None
    family, given = FAMILY_NAMES[customer % len(FAMILY_NAMES)], GIVEN_NAMES[customer // 5 % len(GIVEN_NAMES)]
    return f"{family} {MIDDLE_NAMES[customer // 7 % len(MIDDLE_NAMES)]} {given}"


def company(customer: int) -> tuple[int, str] | tuple[None, None]:
    """Return number and name of the company that a customer belongs to; few do."""
    if customer % 20 != 1:
        return None, None
    number = customer // 20 % len(COMPANIES)
    return 5001 + number, COMPANIES[number]
