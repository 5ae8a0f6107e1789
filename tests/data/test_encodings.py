"""The encoding of a file is found from few lines in any language, what is damaged is told, and doubt has its key."""

from __future__ import annotations

import csv
import io

import pytest

from rankwise import config
from rankwise.data import charsets, encoding, sources
from rankwise.data.opening import opener
from rankwise.errors import UserError

# Four lines each, as reviews are; none of them was looked at when the marks of charsets.py were set.
LINES = {
    "French": ("cp1252 mac_roman", "Le café était froid et le garçon désagréable", "Très déçue, je n'y retournerai pas", "Une soirée agréable à l'hôtel", "Ça ne vaut pas le détour"),
    "German": ("cp1252 mac_roman cp850", "Die Bücher kamen verspätet und beschädigt an", "Schöne Größe, süßer Stoff", "Ich möchte mein Geld zurück", "Für Anfänger geeignet"),
    "Spanish": ("cp1252 mac_roman", "La película fue aburrida y larguísima", "¡Qué sorpresa más agradable!", "Los niños se divirtieron", "No volveré jamás"),
    "Swedish": ("cp1252", "Maten smakade förfärligt och var kall", "Väldigt trevlig kväll", "Jag är så nöjd", "Inget för små barn"),
    "Czech": ("cp1250 iso8859_2", "Kniha přišla pozdě a poškozená", "Výborný čaj, určitě koupím znovu", "Žádná sláva, spíš zklamání", "Děti měly radost"),
    "Hungarian": ("cp1250 iso8859_2", "A könyv későn és sérülten érkezett", "Finom volt az étel, gyors kiszolgálás", "Többet vártam ettől a gyűrűtől", "Nem ajánlom senkinek"),
    "Polish": ("cp1250 iso8859_2", "Książka przyszła późno i zniszczona", "Świetna herbata, kupię ponownie", "Żadna rewelacja, raczej rozczarowanie", "Dzieci były zachwycone"),
    "Turkish": ("cp1254", "Kitap geç geldi ve hasarlıydı", "Çay çok güzeldi, yine alırım", "Hiç beğenmedim, iade ettim", "Çocuklar için uygun değil"),
    "Greek": ("cp1253 iso8859_7", "Το βιβλίο ήρθε αργά και σκισμένο", "Υπέροχο τσάι, θα το ξαναπάρω", "Δεν άξιζε τα λεφτά του", "Τα παιδιά ενθουσιάστηκαν"),
    "Russian": ("cp1251 koi8_r cp866 iso8859_5", "Книга пришла поздно и помятая", "Отличный чай, куплю ещё", "Ничего особенного, скорее разочарование", "Дети были в восторге"),
    "Hebrew": ("cp1255", "הספר הגיע מאוחר ופגום", "תה מצוין, אקנה שוב", "לא שווה את הכסף", "הילדים היו מרוצים"),
    "Arabic": ("cp1256", "وصل الكتاب متأخرا وتالفا", "شاي ممتاز سأشتريه مرة أخرى", "لا يستحق ثمنه", "كان الأطفال سعداء"),
    "Lithuanian": ("cp1257", "Knyga atėjo vėlai ir sugadinta", "Puiki arbata, pirksiu dar kartą", "Nieko ypatingo, veikiau nusivyliau", "Vaikai džiaugėsi"),
    "Thai": ("cp874", "หนังสือมาช้าและชำรุด", "ชาอร่อยมาก จะซื้ออีก", "ไม่คุ้มกับราคา", "เด็กๆ ดีใจมาก"),
    "Japanese": ("cp932 euc_jp", "本が遅れて届き、破れていました", "お茶はとても美味しかったです", "値段に見合わないと思います", "子供たちは喜んでいました"),
    "Chinese": ("gbk", "书到得晚而且已经破损了", "茶很好喝，下次还会买", "不值这个价钱，很失望", "孩子们都非常高兴"),
    "Taiwanese": ("big5", "書到得晚而且已經破損了", "茶很好喝，下次還會買", "不值這個價錢，很失望", "孩子們都非常高興"),
    "Korean": ("euc_kr cp949", "책이 늦게 왔고 찢어져 있었어요", "차가 아주 맛있어서 또 살 거예요", "가격만큼의 가치는 없습니다", "아이들이 무척 좋아했습니다"),
}  # fmt: skip
CASES = [(language, codec, lines) for language, (codecs, *lines) in LINES.items() for codec in codecs.split()]


def table(lines):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("text", "label"), *((line, "ab"[n % 2]) for n, line in enumerate(lines))])
    return text.getvalue()


def read(path, **given):
    return sources.read(str(path), config.from_dict({"data": given}).data, "train")


@pytest.mark.parametrize(("language", "codec", "lines"), CASES, ids=[f"{one[0]} {one[1]}" for one in CASES])
def test_four_lines_of_a_language_are_read(tmp_path, language, codec, lines):
    path = tmp_path / "few.csv"
    path.write_bytes(table(lines).encode(codec))
    source = read(path)
    assert source.texts == list(lines), source.line


def test_one_line_is_read_or_the_right_reading_is_told_with_its_key(tmp_path):
    """One line of a language: the text is right, or a note shows the other reading and the key that gives it."""
    silent = []
    for language, codec, lines in CASES:
        for number, line in enumerate(lines):
            if line.isascii():
                continue
            found = charsets.judged(f"{line},a\n".encode(codec))
            texts = {charsets.decoded(line.encode(codec), name) for name in (found.codec, found.rival) if name}
            if line not in texts:
                silent.append((language, codec, number, found.codec))
    tried = sum(not line.isascii() for _, _, lines in CASES for line in lines)
    assert len(silent) <= tried // 12, silent


def test_what_is_nearly_as_likely_is_told_with_both_readings_and_the_key(tmp_path):
    path = tmp_path / "few.csv"
    path.write_bytes(
        table(["Prefiro pela manhã, sem dúvida", "plain words", "more of them", "and more"]).encode("cp1252")
    )
    source = read(path, encoding="cp1250")
    assert "manhă" in source.texts[0]
    (note,) = [note for note in read(path).notes if "data.encoding=" in note]
    key = note.split("data.encoding=")[1].split()[0]
    assert "'manhã" in note
    assert read(path, encoding=key).texts[0] != read(path).texts[0]


def test_two_letters_with_marks_side_by_side_are_no_chinese_character(tmp_path):
    path = tmp_path / "few.csv"
    path.write_bytes(table(["töö on hea", "good", "bad", "fair"]).encode("cp1252"))
    assert read(path).texts[0] == "töö on hea"


def test_bytes_that_every_candidate_reads_alike_raise_no_doubt(tmp_path):
    path = tmp_path / "quotes.csv"
    path.write_bytes(table(["it’s “fine” – really", "it’s not", "good", "bad"]).encode("cp1252"))
    source = read(path)
    assert source.line.startswith(f"{path}: Windows-1252")
    assert source.texts[0] == "it’s “fine” – really"


@pytest.mark.parametrize("damage", [b"\xc3", b"\xff", b"\x80", b"\xe2\x80"])
def test_a_damaged_byte_does_not_make_utf8_another_encoding(tmp_path, damage):
    lines = ["un café agréable", "déjà vu", "très bien", "plain"]
    content = table(lines).encode().replace("très".encode(), b"tr" + damage + b"s")
    path = tmp_path / "damaged.csv"
    path.write_bytes(content)
    source = read(path)
    assert source.texts[:2] == lines[:2]
    assert source.texts[2].startswith("tr\ufffd")
    assert any("1 damaged character, the first in line 4" in note for note in source.notes)


def test_a_file_that_holds_the_replacement_character_is_not_damaged(tmp_path):
    path = tmp_path / "mended.csv"
    path.write_text(table(["half \ufffd here", "café", "c", "d"]), encoding="utf-8")
    assert read(path).notes == ()


def test_a_folder_may_hold_utf8_damaged_utf8_and_another_encoding(tmp_path):
    for name, content in {
        "a/1": "café bon".encode(),
        "a/2": "très été".encode() + b"\xc3",
        "b/1": "une soirée agréable à l'hôtel".encode("cp1252"),
        "b/2": "caf\xe9".encode("cp1252"),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    source = read(tmp_path)
    assert source.texts == ["café bon", "très été\ufffd", "une soirée agréable à l'hôtel", "café"]
    assert "2 of them in Windows-1252" in source.line
    assert any("1 file of UTF-8" in note for note in source.notes)


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("language", ["Russian", "Chinese", "Hebrew", "Spanish", "Korean"])
def test_utf16_without_its_mark_is_read_in_any_alphabet(tmp_path, codec, language):
    lines = LINES[language][1:]
    path = tmp_path / "rows.csv"
    path.write_bytes(table(lines).encode(codec))
    source = read(path)
    assert source.texts == list(lines)
    assert ": UTF-16, ','" in source.line


def test_zeros_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "picture.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0" + bytes(range(256)))
    with pytest.raises(UserError, match=r"picture\.csv"):
        read(path)


def test_a_long_file_is_judged_by_all_of_its_lines(tmp_path):
    path = tmp_path / "long.txt"
    path.write_bytes(b"a plain line\n" * 200_000 + "Książka przyszła późno, świetna herbata\n".encode("cp1250"))
    assert encoding.look(opener(path)).encoding == "cp1250"
