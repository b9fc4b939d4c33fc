"""What of the provider's own messages may be shown: one may name a customer, and nobody knows which word does."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\s,.;:!?()\[\]{}<>'\"=/]+")
_HIDDEN = "…"
_LONGEST_READ, _LONGEST_SHOWN = 2000, 200
_TECHNICAL = frozenset(
    """
    a abort aborted accept accepted access account action active again agent all allowed already and another any api
    application are argument arguments as at audio auth authenticated authentication authorization authorized bad be
    been before blocked body busy but by call callid calls can cannot channel client closed code codec company
    concurrent conflict connect connection content could credential credentials cursor data database date day days
    delete deleted denied disabled does down duplicate each email empty end ended endpoint endpoints error errors
    exceed exceeded exceeds exception exist exists expected expire expired extension external fail failed failure
    field file files filter first for forbidden format found from full gateway get given greeting has have header
    headers history host hour hours http https id ids if in inactive incorrect input internal into invalid ip is
    issue issuer it its json jwt key kind large last later length less limit limited limits list locked logged login
    maintenance malformed many match matching max maximum message method min minimum minute minutes missing more
    must need needs network new no none not nothing now null number object of off offset ok old on only open
    operation option or order other out over overload overloaded page pages param parameter parameters params parse
    part participant password payload pending per permission permissions permitted phone please portal portals post
    present processing progress project provided proxy queue quota range rate reached read ready reason record
    recording recordings refused reject rejected request requested requests require required resource response
    result results retry role row rows same search search_after second seconds secret see send sent server servers
    service session set sid signature since size some something sort sort_order start started state status still
    stop stopped storage string stringee such support supported system temporarily temporary than that the then
    there thing this time timed timeout times to token too total transfer transferred try type unable
    unauthenticated unauthorized unavailable unexpected unknown unprocessable unreadable unsupported until upload
    uploaded url use used user userid username valid validation value values version video voice wait was were when
    which while will window with within without wrong yet you your zero
    """.split()  # noqa: SIM905 - a list of three hundred strings would be longer, and no clearer
)
"""Words of the trade, in small letters. A name is none of them, whatever the language."""
_AS_WRITTEN = frozenset({"InvalidSignatureError", "ExpiredSignatureError", *(word.upper() for word in _TECHNICAL)})


def technical_words_of(message: str) -> str:
    """Return the message on one short line, with ``…`` for every word that is not of the trade, and every number."""

    def shown_word(word: re.Match[str]) -> str:
        known = word[0].lower() if word.start() == 0 else word[0]
        return word[0] if known in _TECHNICAL or word[0] in _AS_WRITTEN else _HIDDEN

    shown = _WORD.sub(shown_word, message[:_LONGEST_READ].strip())
    return re.sub(rf"{_HIDDEN}(?:[\s{_HIDDEN}]*{_HIDDEN})?", _HIDDEN, " ".join(shown.split()))[:_LONGEST_SHOWN]
