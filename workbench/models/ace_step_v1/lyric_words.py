"""Words with which ACE-Step v1 spells out lyrics: abbreviations, symbols and ordinals of each language."""

from dataclasses import dataclass, field

SYMBOLS = "&@%#$£°"


@dataclass(frozen=True)
class Words:
    """The words of a language.

    `symbols` has the names of `SYMBOLS`, in the same order. `ordinal` is a regular expression for what follows the
    digits of an ordinal number, `cents` the word before the cents of an amount, and `numbers` the language's name in
    num2words (None: numbers stay digits, as in the published sampler for Czech).
    """

    numbers: str | None
    symbols: str
    ordinal: str
    abbreviations: dict[str, str] = field(default_factory=dict)
    abbreviation_end: str = r"\."
    cents: str = ", "

    def symbol_names(self) -> dict[str, str]:
        """Name of each symbol."""
        return dict(zip(SYMBOLS, self.symbols.split(", "), strict=True))


WORDS = {
    "en": Words(
        numbers="en",
        symbols="and, at, percent, hash, dollar, pound, degree",
        ordinal="st|nd|rd|th",
        abbreviations={
            "capt": "captain",
            "co": "company",
            "col": "colonel",
            "dr": "doctor",
            "drs": "doctors",
            "esq": "esquire",
            "ft": "fort",
            "gen": "general",
            "hon": "honorable",
            "jr": "junior",
            "lt": "lieutenant",
            "ltd": "limited",
            "maj": "major",
            "mr": "mister",
            "mrs": "misess",  # the published sampler's spelling
            "rev": "reverend",
            "sgt": "sergeant",
            "st": "saint",
        },
    ),
    "de": Words(
        numbers="de",
        symbols="und, at, prozent, raute, dollar, pfund, grad",
        ordinal=r"st|nd|rd|th|º|ª|\.(?=\s|$)",
        abbreviations={"co": "firma", "dr": "doktor", "fr": "frau", "jr": "junior", "st": "sankt"},
        cents=" und ",
    ),
    "fr": Words(
        numbers="fr",
        symbols="et, arobase, pour cent, dièse, dollar, livre, degrés",
        ordinal="º|ª|er|re|e|ème",
        abbreviations={
            "co": "compagnie",
            "dr": "docteur",
            "jr": "junior",
            "ltd": "limitée",
            "mme": "madame",
            "mr": "monsieur",
            "st": "saint",
        },
        cents=" et ",
    ),
    "es": Words(
        numbers="es",
        symbols="y, arroba, por ciento, numeral, dolar, libra, grados",
        ordinal="º|ª|er|o|a",
        abbreviations={
            "co": "compañía",
            "dr": "doctor",
            "dra": "doctora",
            "jr": "junior",
            "ltd": "limitada",
            "sr": "señor",
            "sra": "señora",
            "st": "santo",
        },
        cents=" con ",
    ),
    "it": Words(
        numbers="it",
        symbols="e, chiocciola, per cento, cancelletto, dollaro, sterlina, gradi",
        ordinal="º|°|ª|o|a|i|e",
        abbreviations={
            "co": "compagnia",
            "dr": "dottore",
            "jr": "junior",
            "ltd": "limitata",
            "sig": "signore",
            "st": "santo",
        },
        cents=" e ",
    ),
    "pt": Words(
        numbers="pt",
        symbols="e, arroba, por cento, cardinal, dólar, libra, graus",
        ordinal="º|ª|o|a",
        abbreviations={
            "co": "companhia",
            "dr": "doutor",
            "dra": "doutora",
            "jr": "júnior",
            "ltd": "limitada",
            "sr": "senhor",
            "sra": "senhora",
            "st": "santo",
        },
        cents=" e ",
    ),
    "pl": Words(
        numbers="pl",
        symbols="i, małpa, procent, krzyżyk, dolar, funt, stopnie",
        ordinal="º|ª|st|nd|rd|th",
        abbreviations={"dr": "doktor", "jr": "junior", "m": "pan", "p": "pani", "sw": "święty"},
    ),
    "tr": Words(
        numbers="tr",
        symbols="ve, at, yüzde, diyez, dolar, sterlin, derece",
        ordinal=r"\.|inci|nci|uncu|üncü",
        abbreviations={"b": "bay", "byk": "büyük", "dr": "doktor"},
    ),
    "cs": Words(
        numbers=None,
        symbols="a, na, procento, křížek, dolar, libra, stupně",
        ordinal="",
        abbreviations={"dr": "doktor", "ing": "inženýr", "p": "pan"},
    ),
    "nl": Words(
        numbers="nl",
        symbols="en, bij, procent, hekje, dollar, pond, graden",
        ordinal="de|ste|e",
        abbreviations={"dhr": "de heer", "dr": "dokter", "jhr": "jonkheer", "mevr": "mevrouw"},
    ),
    "hu": Words(
        numbers="hu",
        symbols="és, kukac, százalék, kettőskereszt, dollár, font, fok",
        ordinal=r"\.|adik|edik|odik|ödik|ik",
        abbreviations={"b": "bácsi", "dr": "doktor", "nőv": "nővér"},
    ),
    "ru": Words(
        numbers="ru",
        symbols="и, собака, процентов, номер, доллар, фунт, градус",
        ordinal="-й|-я|-е|-ое|-ье|-го",
        abbreviations={"г-жа": "госпожа", "г-н": "господин", "д-р": "доктор"},
        abbreviation_end=r"\b",
    ),
}
