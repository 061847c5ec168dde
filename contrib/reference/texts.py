# SPDX-License-Identifier: Apache-2.0
"""texts.py - the training text of the test tokenizers and the test strings.

Owns every character that the tokenizer fixtures are made from: the text is
written or generated here, so that the fixtures carry nobody else's licence.
Knows nothing about tokenizers; make_tokenizers.py does.

Everything is a pure function of the seeds below.
"""

import random
import unicodedata

# name, first, last code point: one row for each script or block that a
# generated word may be drawn from.
SCRIPTS = [
    ("latin-1", 0x00C0, 0x00FF), ("latin-ext-a", 0x0100, 0x017F),
    ("latin-ext-b", 0x0180, 0x024F), ("ipa", 0x0250, 0x02AF),
    ("greek", 0x0391, 0x03C9), ("cyrillic", 0x0410, 0x044F),
    ("cyrillic-ext", 0x0460, 0x0481), ("armenian", 0x0531, 0x0556),
    ("hebrew", 0x05D0, 0x05EA), ("arabic", 0x0620, 0x064A),
    ("syriac", 0x0710, 0x072F), ("thaana", 0x0780, 0x07A5),
    ("nko", 0x07CA, 0x07EA), ("samaritan", 0x0800, 0x0815),
    ("devanagari", 0x0905, 0x094D), ("bengali", 0x0985, 0x09CD),
    ("gurmukhi", 0x0A05, 0x0A4D), ("gujarati", 0x0A85, 0x0ACD),
    ("oriya", 0x0B05, 0x0B4D), ("tamil", 0x0B85, 0x0BCD),
    ("telugu", 0x0C05, 0x0C4D), ("kannada", 0x0C85, 0x0CCD),
    ("malayalam", 0x0D05, 0x0D4D), ("sinhala", 0x0D85, 0x0DCF),
    ("thai", 0x0E01, 0x0E4E), ("lao", 0x0E81, 0x0ECD),
    ("tibetan", 0x0F40, 0x0F84), ("myanmar", 0x1000, 0x103F),
    ("georgian", 0x10A0, 0x10FA), ("hangul-jamo", 0x1100, 0x11C2),
    ("ethiopic", 0x1200, 0x135A), ("cherokee", 0x13A0, 0x13F5),
    ("ucas", 0x1401, 0x1676), ("ogham", 0x1680, 0x169A),
    ("runic", 0x16A0, 0x16EA), ("tagalog", 0x1700, 0x1714),
    ("khmer", 0x1780, 0x17D3), ("mongolian", 0x1820, 0x1878),
    ("limbu", 0x1900, 0x193B), ("new-tai-lue", 0x1980, 0x19C9),
    ("balinese", 0x1B05, 0x1B44), ("sundanese", 0x1B83, 0x1BAA),
    ("ol-chiki", 0x1C50, 0x1C7D), ("vedic", 0x1CD0, 0x1CFA),
    ("phonetic", 0x1D00, 0x1D7F), ("latin-additional", 0x1E00, 0x1EFF),
    ("greek-ext", 0x1F00, 0x1FFC), ("super-sub", 0x2070, 0x209C),
    ("currency", 0x20A0, 0x20BF), ("letterlike", 0x2100, 0x214F),
    ("number-forms", 0x2150, 0x218B), ("arrows", 0x2190, 0x21FF),
    ("math", 0x2200, 0x22FF), ("technical", 0x2300, 0x23FF),
    ("enclosed", 0x2460, 0x24FF), ("box", 0x2500, 0x25FF),
    ("dingbats", 0x2700, 0x27BF), ("braille", 0x2800, 0x28FF),
    ("glagolitic", 0x2C00, 0x2C5F), ("coptic", 0x2C80, 0x2CEE),
    ("tifinagh", 0x2D30, 0x2D67), ("punctuation", 0x2010, 0x205E),
    ("cjk-punctuation", 0x3001, 0x303F), ("hiragana", 0x3041, 0x3096),
    ("katakana", 0x30A1, 0x30FC), ("bopomofo", 0x3105, 0x312F),
    ("hangul-compat", 0x3131, 0x318E), ("cjk-enclosed", 0x3200, 0x32FE),
    ("cjk-ext-a", 0x3400, 0x4DBF), ("cjk", 0x4E00, 0x9FA5),
    ("cjk-late", 0x9FA6, 0x9FFC), ("yi", 0xA000, 0xA48C),
    ("vai", 0xA500, 0xA62B), ("latin-ext-d", 0xA722, 0xA787),
    ("javanese", 0xA984, 0xA9C0), ("cham", 0xAA00, 0xAA36),
    ("meetei", 0xABC0, 0xABED), ("hangul", 0xAC00, 0xD7A3),
    ("cjk-compat", 0xF900, 0xFAD9), ("alphabetic-forms", 0xFB00, 0xFB4F),
    ("arabic-forms", 0xFE80, 0xFEFC), ("half-full", 0xFF01, 0xFFDC),
    ("linear-b", 0x10000, 0x100FA), ("gothic", 0x10330, 0x1034A),
    ("deseret", 0x10400, 0x1044F), ("cuneiform", 0x12000, 0x12399),
    ("hieroglyphs", 0x13000, 0x1342E), ("adlam", 0x1E900, 0x1E94B),
    ("math-alnum", 0x1D400, 0x1D7FF), ("cjk-ext-b", 0x20000, 0x2A6D6),
]

# Short sentences of our own; they train the merges and serve as tests.
SENTENCES = [
    "The miller's cat sleeps on the warm sacks, and nobody dares to wake it.",
    "When the rain had gone, the two sisters went down to the river again.",
    "I'll tell you what we've seen; you're not going to like it, I'm sure.",
    "He said he'd come, but he didn't, and that's the end of it.",
    "A small engine reads its weights from the disk, expert by expert.",
    "Nobody knows how many stars there are, but Anna counted 127 of them.",
    "Once upon a time there was a little fox who could not find his hat.",
    "\"Where is it?\" asked the fox. \"On your head!\" answered the owl.",
    "They walked and walked until the moon stood high above the hills.",
    "Please send 3 boxes (about 12.5 kg) to the old harbour by Monday.",
    "What a wonderful, strange, long and quiet evening this has been!",
    "The quick answer is no; the slow answer, as always, is perhaps.",
    "Der alte Müller ging am Morgen über die Brücke zum Fluss hinunter.",
    "Große Füße brauchen größere Schuhe, sagte der Schuster fröhlich.",
    "Le petit garçon a mangé une pêche à l'ombre du vieux chêne.",
    "L'été dernier, nous étions très heureux près de la forêt.",
    "El niño pequeño corrió por la montaña hasta que llegó la mañana.",
    "¿Dónde está la llave? ¡Está aquí, debajo de la piedra!",
    "O pão está quente e o café ainda não está pronto, minha irmã.",
    "La nonna racconta perché il mare è così blu e profondo.",
    "Zażółć powoli tę ścianę, bo jutro przyjdą goście z daleka.",
    "Příliš mnoho koní běželo přes žlutou louku k řece.",
    "A kis róka átúszott a széles folyón, és nem fázott.",
    "Küçük kız güneşin altında şarkı söylüyordu, İstanbul ışıl ışıl.",
    "Старый мельник утром пошёл через мост к реке.",
    "Маленькая лиса не могла найти свою шляпу, но не плакала.",
    "Стара жінка їсть хліб і дивиться на зелений ліс.",
    "Η μικρή αλεπού κοιμάται κάτω από το παλιό δέντρο.",
    "הילדה הקטנה הלכה אל הנהר עם הכלב שלה.",
    "ذهب الولد الصغير إلى النهر مع كلبه في الصباح.",
    "कल सुबह छोटी लड़की नदी के किनारे अपने कुत्ते के साथ गई।",
    "ছোট মেয়েটি নদীর ধারে তার কুকুরের সাথে হাঁটছিল।",
    "சிறிய பெண் ஆற்றங்கரையில் நடந்து சென்றாள்.",
    "เด็กน้อยเดินไปที่แม่น้ำกับสุนัขของเขา",
    "小狐狸找不到它的帽子,于是坐在河边看月亮。",
    "今天早上，老磨坊主走过桥去河边，买了３条鱼。",
    "小さな狐は帽子が見つからなくて、川のそばで月を見ていた。",
    "ねこはあたたかいふくろのうえでねむっている。コーヒーはまだです。",
    "작은 여우는 모자를 찾지 못해서 강가에 앉아 달을 보았다.",
    "Cô bé nhỏ đi dạo bên bờ sông với con chó của mình mỗi buổi sáng.",
    "Mtoto mdogo alikwenda mtoni asubuhi na mbwa wake.",
    "Litla stúlkan gekk að ánni með hundinum sínum í þokunni.",
]

CODE = [
    "int main(void)\n{\n    return 0;\n}\n",
    "for (i = 0; i < n; i++) {\n\tsum += a[i] * b[i];\n}",
    "static inline float dot(const float *x, const float *y, int n);",
    "#include <stdio.h>\n#define MAX(a, b) ((a) > (b) ? (a) : (b))\n",
    "if (p == NULL || *p == '\\0')\n        return -1; /* nothing here */",
    "def forward(self, x):\n    return self.down(act(self.gate(x)) * "
    "self.up(x))\n",
    "    x = [i ** 2 for i in range(10) if i % 2 == 0]  # squares\n",
    "print(f\"{name!r:>10}: {value:.3f}\")",
    "{\"name\": \"tiny\", \"layers\": 2, \"ok\": true, \"x\": [1, 2.5, "
    "-3e-7, null]}",
    "<p class=\"note\">A &amp; B &lt; C</p><!-- end -->",
    "SELECT id, COUNT(*) FROM words WHERE len >= 3 GROUP BY id;",
    "#!/bin/sh\nset -e\nfor f in *.txt; do wc -l \"$f\"; done\n",
    "https://www.example.org/a/b?c=1&d=%20x#top",
    "someone@example.org",
    "C:\\Users\\anna\\file_name-2.TXT",
    "lambda x: (x and not x) or {**x, 'k': x[::-1]}",
    "let y = x.iter().map(|v| v + 1).collect::<Vec<_>>();",
    "template<typename T> auto f(T&& t) -> decltype(t.g()) { return t->g; }",
    "a->b.c[d]==e!=f<=g>=h&&i||j<<k>>l^m%n~o",
    "camelCaseName snake_case_name SCREAMING_CASE kebab-case-name",
    "0xDEADBEEF 0b1010 0o777 1_000_000 1e-9 3.14f 10UL",
    "$x = @y{'z'} =~ s/\\s+$//gr;",
    "\\begin{equation} \\frac{a}{b} = \\sum_{i=0}^{n} x_i \\end{equation}",
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
    "- [ ] one\n- [x] two\n  * three\n\n> quoted\n\n```c\nx;\n```\n",
]

# Spelled as the published tokenizers spell them; each kind declares some of
# them as added tokens, and to the others they are plain text.
SPECIALS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>",
    "<s>", "</s>", "<unk>", "[INST]", "[/INST]",
    "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>",
    "<|start_header_id|>", "<|end_header_id|>",
    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>",
    "<|padding|>", "|||EMAIL|||", "<tool_call>", "</tool_call>",
    "[MASK]", "[LEFT]", "[RIGHT]", "[BOTH]", "Word", "word", "WORDS", "né",
    "overlap", "overlapping", "lap", "<a>", "<a><b>", "<b>",
]

EMOJI = [
    "😀", "😂🤣", "🙂🙃", "❤", "❤️", "♥︎", "👍", "👍🏽", "👍🏿", "👋🏻 hi",
    "👩‍💻", "👨‍👩‍👧‍👦", "👩🏽‍🚀", "🏳️‍🌈", "🏴‍☠️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "🇩🇪", "🇫🇷🇯🇵", "🇺🇸🇺🇦🇨🇭", "1️⃣", "#️⃣", "*️⃣ 2️⃣", "☂️☔", "✌️✌🏾",
    "🧑‍🤝‍🧑", "🧑🏻‍🤝‍🧑🏿", "👁️‍🗨️", "🤷‍♀️", "🤦🏼‍♂️", "🦊🎩", "🐈‍⬛", "🐻‍❄️",
    "⌚️⏰", "🀄🃏", "🈁🈶", "㊗️㊙️", "©️®️™️", "‼️⁉️", "▶️⏩", "🔟", "🅰️🆎",
    "🌍🌎🌏", "🎄🎅🏽", "🍎🍐", "🚗🚙💨", "🛸", "🥰", "🦾", "🫠", "🫡🫶🏼",
    "🪄", "🧿", "🫖", "🩰", "🤌", "🥲",
]


def _assigned(cp):
    return unicodedata.category(chr(cp)) not in ("Cn", "Cs", "Co")


def script_pools():
    """(name, characters assigned in this script) for each script."""
    pools = []
    for name, first, last in SCRIPTS:
        chars = [chr(c) for c in range(first, last + 1) if _assigned(c)]
        pools.append((name, chars))
    return pools


def training_text():
    """The lines that the test tokenizers are trained on."""
    rng = random.Random(20240601)
    lines = []
    words = sorted({w for s in SENTENCES[:12] for w in s.split()})
    starts = ["The", "A", "Every", "One", "My", "Her", "This", "No"]
    nouns = ["fox", "owl", "miller", "river", "bridge", "hat", "sister",
             "engine", "expert", "moon", "story", "harbour", "window",
             "stone", "garden", "letter", "winter", "morning", "kitten"]
    verbs = ["sees", "finds", "wants", "carries", "remembers", "follows",
             "forgets", "counts", "answers", "reads", "opens", "loves"]
    marks = [".", ".", ".", "!", "?", ";", ", too.", "..."]
    for _ in range(700):
        line = "%s %s %s the %s%s" % (
            rng.choice(starts), rng.choice(nouns), rng.choice(verbs),
            rng.choice(nouns), rng.choice(marks))
        if rng.random() < 0.3:
            line += " And it's %d %s, isn't it?" % (
                rng.randrange(2, 3000), rng.choice(nouns) + "s")
        lines.append(line)
    for _ in range(60):
        lines.append(" ".join(rng.choice(words) for _ in range(8)))
    for _ in range(12):
        lines.extend(SENTENCES)
    for _ in range(8):
        lines.extend(CODE)
    for _, pool in script_pools():
        few = pool[::max(1, len(pool) // 24)]
        for _ in range(3):
            lines.append(" ".join(
                "".join(rng.choice(few) for _ in range(rng.randrange(2, 6)))
                for _ in range(4)))
    lines.extend(EMOJI * 2)
    for depth in range(1, 9):
        lines.append(("    " * depth + "x = y\n") * 6)
        lines.append(("\t" * depth + "call();\n") * 4)
        lines.append("a" * depth * 4 + " " + "-" * depth * 4 + "=" * depth)
        lines.append("\n" * depth + "next\r\n" * 2)
    for _ in range(60):
        lines.append("%d.%02d + %d = %d" % (
            rng.randrange(10000), rng.randrange(100), rng.randrange(100),
            rng.randrange(10 ** 6)))
    return lines


def _contractions():
    out = []
    for word in ("it", "you", "WE", "o", "x1", "é", "ß", "中"):
        for tail in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T",
                     "'RE", "'Ve", "'M", "'lL", "'D", "'x", "’s", "'",
                     "''s", "'ſ", "'st", " 's", "'re're"):
            if len(word) + len(tail) < 5 or word in ("you", "WE"):
                out.append(word + tail)
    return out


def _spaces(rng):
    blanks = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\v", "\f",
              "\u0085", "\u00a0", "\u1680", "\u180e", "\u2000", "\u2003",
              "\u2007", "\u2009", "\u200a", "\u200b", "\u200c", "\u200d",
              "\u2028", "\u2029", "\u202f", "\u205f", "\u2060", "\u3000",
              "\ufeff", "\u001c", "\u001f", "▁", "▁▁", "Ġ", "Ċ", "Â", "Ã"]
    out = []
    for b in blanks:
        out += [b, b + "a", "a" + b, "a" + b + "b", b + b + "a.", "1" + b + "!"]
    for _ in range(120):
        n = rng.randrange(2, 6)
        parts = []
        for _ in range(n):
            parts.append(rng.choice(blanks) * rng.choice([1, 1, 2, 3]))
            parts.append(rng.choice(["a", "The", "7", "42", ".", ", ", "!?",
                                     "é", "猫", "", ""]))
        out.append("".join(parts))
    for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 64):
        out += [" " * n, " " * n + "x", "x" + " " * n, "x" + " " * n + "y",
                "\n" * n, "\n" * n + " x", "\t" * n + "x"]
    out += ["a \n b", "a\n \nb", "a  \n  \n  b", " \n", "\n ", " \r\n ",
            "a \n", "a\n\n\n", "a\n\n\n\n b", "a. \nB", "a.\n\nB", "x;\n\n}",
            "  \n\t\n  x", "tail   ", "tail \t", "tail\n  ", ". . .", "...  .",
            "word  word", "word   word", "word\u00a0 word", "word \u00a0word"]
    return out


def _controls():
    out = []
    for c in list(range(0x00, 0x20)) + list(range(0x7F, 0xA1)):
        out.append("a" + chr(c) + "b" if c % 2 else chr(c) + " x" + chr(c))
    out += ["\0", "\0\0\0", "a\0b\0", "\x1b[31mred\x1b[0m", "\x07\x08\x7f"]
    return out


def _numbers(rng):
    out = []
    for n in range(1, 21):
        out.append("".join(rng.choice("0123456789") for _ in range(n)))
    for n in (3, 4, 5, 7, 10):
        digits = "".join(rng.choice("0123456789") for _ in range(n))
        out += [" " + digits, "x" + digits, digits + "x", "-" + digits + ".5",
                "$" + digits + ",00", digits + " " + digits, "v" + digits +
                "." + digits + "-rc1", digits + "\n" + digits]
    out += ["٠١٢٣٤٥٦٧٨٩", "۰۱۲۳", "०१२३४५६७८९", "০১২৩", "๐๑๒๓", "０１２３４５６",
            "Ⅷ ⅳ Ⅻ", "½ ¼ ¾ ⅓", "x² + y³ = z⁴", "H₂O CO₂", "①②③ ⑴⑵ ⒈⒉",
            "一二三四五六七八九十百千万億", "𝟘𝟙𝟚𝟛", "𝟎𝟏𝟐", "1st 2nd 3rd 4th",
            "12:34:56", "2024-06-01T12:00:00Z", "1/2 3/4", "50%", "5 %", "№5",
            "1,234,567.89", "1.234.567,89", "1 234 567", "+49 (0)30 123-456",
            "0.1.2.3.4", "1e10", "1E-10", "−5", "±3", "10^6", "１．２",
            "1२३", "٣4", "5\u0301", "5\ufe0f\u20e3", "᠑᠒", "𐒠𐒡", "߀߁"]
    return out


def _combining(rng):
    marks = [chr(c) for c in range(0x0300, 0x0370) if c not in (0x34F,)]
    bases = list("aeioucnszAEO") + ["ẞ", "ø", "α", "и", "あ", "क", "ก", " ",
                                    "1", "-"]
    out = []
    for i, m in enumerate(marks):
        out.append(bases[i % len(bases)] + m)
    for _ in range(60):
        out.append(rng.choice(bases) + "".join(
            rng.choice(marks) for _ in range(rng.randrange(2, 5))) + "x")
    out += ["e\u0301", "é", "A\u030a", "Å", "\u212b", "\u2126", "\u212a",
            "ﬁ", "ﬀ", "ﬆ", "ﬅ", "ǆ", "ŉ", "ſ", "ẛ̣", "ﾊﾞ", "ﾊﾟ", "ヷ", "か゛",
            "か\u3099", "は\u309a", "が", "\u1100\u1161\u11a8", "각",
            "가\u11a8", "\u1100\u1161", "\uac01\u11a8", "각각",
            "\u0958", "क\u093c", "\u09dc", "\u0f43", "\u0f73", "\u0344",
            "\u0340\u0341", "\u0374", "\u037e", "\u0387", "\u1f71", "ά",
            "\u2329x\u232a", "\uf900", "\uf951", "\ufa30", "\U0002f800",
            "a\u0323\u0307", "a\u0307\u0323", "q\u0307\u0323", "s\u0323\u0307",
            "\u1e69", "\u0141\u0335", "o\u0302\u0301", "ố", "ộ", "ữ", "Việt",
            "Vie\u0302\u0323t", "Nguye\u0302\u0303n", "i\u0307", "İ", "ı",
            "I\u0307", "\u0300", "\u0301\u0301", "a\u034fb", "\u20d0", "a⃝",
            "\u0b47\u0b3e", "\u0bc6\u0bbe", "\u0dd9\u0dca\u0dcf",
            "\u1025\u102e", "\u1b05\u1b35", "\U00011131\U00011127",
            "\U0001d157\U0001d165", "\U0001d15e", "\ufb1d", "\u05e9\u05c1",
            "\ufb2a", "لا", "ﻻ", "Å\u0323", "ﷺ", "㍍", "㌔", "①", "ℌ", "𝔄", "ª"]
    return out


def _cased():
    return ["İstanbul", "IŞIK", "ışık", "ΣΊΣΥΦΟΣ", "ΟΔΟΣ", "Σ", "ς", "STRASSE",
            "Straße", "STRAẞE", "ǅ", "Ǆ", "Ⅷ", "Ⓐ", "ԱԲԳ", "ႠႡ", "ᲐᲑ", "ꙀꙂ",
            "𐐀𐐁", "𞤀𞤁", "ＡＢＣ", "ᎠᎡꭰ", "ÀÉÎ", "Ÿ", "Ω", "K", "Å", "ẞ",
            "Ⱥ", "Ꞵ", "MiXeD CaSe", "HELLO World", "iPhone", "ĲĳŒœ",
            "ŉ", "ΐ", "ᾳ", "ᾼ", "ﬀ", "և", "Ǳ", "ƻ", "ª"]


def _special(rng):
    out = []
    for s in SPECIALS:
        out += [s, "a" + s + "b", "a " + s + " b", s + s, s[:-1], s[1:],
                "  " + s + "  x", s.upper(), s + "\n"]
    for _ in range(120):
        parts = []
        for _ in range(rng.randrange(2, 5)):
            parts.append(rng.choice(SPECIALS))
            parts.append(rng.choice(["", " ", "x", " hi ", "\n", "  ", "_",
                                     ".", "é", "1", "-a"]))
        out.append("".join(parts))
    out += ["<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n",
            "<s>[INST] What's up? [/INST] Not much.</s>",
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
            "Hi<|eot_id|>",
            "<｜begin▁of▁sentence｜><｜User｜>你好", "<think>\n\n</think>\n\n",
            "<0x41>", "<0x0A><0x00>", "<0xFF>", "<0xGG>", "< |endoftext|>",
            "<|endoftext|", "|endoftext|>", "<<|endoftext|>>", "<｜x｜>"]
    return out


def _long_words():
    out = ["a" * n for n in (17, 40, 99, 256, 500)]
    out += ["the" * 40, "ab" * 100, "-" * 120, "=" * 65, "." * 33, "!?" * 30,
            "é" * 50, "猫" * 60, "😀" * 30, "\u0301" * 30, "a\u0301" * 30,
            "9" * 130, "A" * 70, "Donaudampfschifffahrtsgesellschaft" * 3,
            "x_" * 50, "/" * 40, "\\" * 41, "  a" * 30, "\n\n \n" * 12,
            "ᄀ" * 30, "กำ" * 30, "\u200d" * 20, "ſ" * 20, "'s" * 25]
    return out


def _singles(rng):
    out = [chr(c) for c in range(0x21, 0x7F)]
    for _ in range(200):
        while True:
            c = rng.randrange(0xA1, 0x20000)
            if _assigned(c):
                break
        out.append(chr(c) if rng.random() < 0.5 else "z" + chr(c) + " 3")
    out += ["\ue000", "\uf8ff", "\U000f0000", "\U0010ffff", "\ufffe", "\uffff",
            "\ufdd0", "\U0001ffff", "\ufffd", "\ufffc", "a\ufffdb", "\u0378",
            "\u202eabc\u202c", "\u2066x\u2069", "\U000e0041\U000e007f",
            "\ud7ff", "\U0002fa1d", "\U0001f9ff", "\U0001f000"]
    return out


def _mixtures(rng):
    pools = dict(script_pools())
    names = sorted(pools)
    common = (list("abcdefghij KLMNOP  0123456789.,;:!?'\"()-_/\\\n\t#@")
              + ["'s", " the", "ing", "  ", "\r\n", "é", "ü", "▁", "…", "—"])
    out = []
    for _ in range(260):
        parts = []
        for _ in range(rng.randrange(1, 9)):
            r = rng.random()
            if r < 0.7:
                parts.append(rng.choice(common))
            elif r < 0.95:
                parts.append(rng.choice(pools[rng.choice(names)]))
            else:
                parts.append(rng.choice(EMOJI))
        out.append("".join(parts))
    return out


def _script_words(rng):
    out = []
    for _, pool in script_pools():
        few = [rng.choice(pool) for _ in range(12)]

        def word(low, high):
            return "".join(rng.choice(few)
                           for _ in range(rng.randrange(low, high)))
        out += [word(1, 4), word(2, 5), " " + word(2, 4),
                word(2, 4) + " " + word(1, 4), "a" + word(1, 3),
                word(1, 3) + "7", word(1, 3) + ", " + word(1, 3) + "!",
                "(" + word(1, 3) + ")"]
    return out


def _newer():
    """Strings whose classes or compositions changed after Unicode 12: the
    reference library's own tables disagree among themselves here, so a
    reader may count these without failing."""
    cps = [0x0898, 0x08C8, 0x08CA, 0x0CDD, 0x0ECE, 0x1712, 0x171F, 0x1ABF,
           0x1C89, 0x1DF6, 0x20C0, 0x2427, 0x2C2F, 0x31E4, 0x9FFD, 0xA7C0,
           0xA7CB, 0xA7F2, 0xAB69, 0x10570, 0x10780, 0x10D40, 0x10EFD,
           0x11070, 0x11240, 0x11F02, 0x12FF0, 0x16AC0, 0x1AFF0, 0x1CF00,
           0x1D2C0, 0x1DF00, 0x1E290, 0x1E4D0, 0x1E7E0, 0x1FA75, 0x1FAE8,
           0x1FBF0, 0x2A6DE, 0x30000, 0x31350, 0x2EBF0, 0x105C0, 0x116D0]
    out = []
    for c in cps:
        out += ["a" + chr(c) + "b", chr(c) + " 1" + chr(c)]
    out += ["a\u0898\u0301", "\u32ff", "\U00011938", "\U00011935\U00011930",
            "e\u1abf\u0323", "\u07fd\u0301x"]
    return out


def strings():
    """(groups, strings): groups are [name, first index, count]."""
    rng = random.Random(987654321)
    made = [
        ("empty", [""]),
        ("sentences", SENTENCES + [" " + s[:30] for s in SENTENCES]
         + [s[5:22] for s in SENTENCES]),
        ("code", CODE),
        ("contractions", _contractions()),
        ("whitespace", _spaces(rng)),
        ("controls", _controls()),
        ("numbers", _numbers(rng)),
        ("scripts", _script_words(rng)),
        ("emoji", EMOJI + ["a" + e for e in EMOJI[::3]]
         + [e + " " + e for e in EMOJI[::4]]),
        ("combining", _combining(rng)),
        ("case", _cased()),
        ("special", _special(rng)),
        ("long", _long_words()),
        ("single", _singles(rng)),
        ("mixtures", _mixtures(rng)),
        ("newer-unicode", _newer()),
    ]
    seen = set()
    groups, flat = [], []
    for name, items in made:
        first = len(flat)
        for s in items:
            if s not in seen:
                seen.add(s)
                flat.append(s)
        groups.append([name, first, len(flat) - first])
    return groups, flat


def long_rules():
    """Texts too long to be written out: [unit, count], joined."""
    return [["a", 1000000], [" ", 1000000], ["\n", 200000], ["7", 200000],
            ["ab", 100000], ["the fox ", 50000], ["猫", 100000],
            [" \n", 50000], ["-", 100000], ["e\u0301", 50000],
            ["<|endoftext|>", 2000], ["\t", 100000]]
