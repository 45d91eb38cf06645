"""Words that the paper's grader takes for units wherever they stand alone: units, things counted in word problems, and single letters."""

_SINGULAR = {
    "length": "mm|cm|dm|m|km|inch|ft|feet|yard|mile|meter|metre|mtr",
    "area and volume": "acre|hectare|are|square|cubic|cube|sq|sq m|sq cm|sq inch|cm 2|cu m|cu cm|cc|liter|litre|l|gallon|gal",
    "mass and resistance": "g|gm|kg|mg|lb|ohm",
    "time and speed": "s|sec|second|min|minute|h|hr|hour|day|week|month|yr|year|noon|am|pm|mph|kmph|kmh",
    "angle and direction": "degree|deg|east|west|north|south",
    "money and trade": "rs|rupee|dollar|cent|percent|profit|gain|loss|discount",
    "things counted": "man|men|woman|women|monkey|soldier|apple|toy|coin|pie|tile|mark|round|unit|way|prime",
    "other words": "by|per|more|less|increase|decrease|excess|rise|no change|number|ratio|pure|surface|st|th|rd",
    "letters": "a|c|d|o|t",
}
UNIT_WORDS = tuple(word + plural for words in _SINGULAR.values() for word in words.split("|") for plural in ("", "s"))
