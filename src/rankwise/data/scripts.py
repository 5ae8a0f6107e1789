"""What a word is, in every script: a regular expression for TF-IDF and for texts that repeat."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, kana and Han, which put no spaces between words: a letter is a word, and pairs are what Lucene's
CJKAnalyzer counts; a run of them is a sentence that hardly ever comes again"""
_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"  # accents
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # Hebrew
    "\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0898-\u089f\u08ca-\u08ff"  # Arabic
    "\u0711\u0730-\u074a\u07a6-\u07b0\u07eb-\u07f3"  # Syriac, Thaana, N'Ko
    "\u0900-\u0963\u0966-\u0dff\u0f71-\u0f84\u0f8d-\u0fbc"  # Indic, Tibetan
    "\u200c\u200d"  # joiners, as Persian and Indic scripts have them inside of words
)
"""what regular expressions take for no part of a word: accents, vowels, joiners"""
_LETTERS = rf"[^\W{_UNSPACED}]"
WORD = rf"[{_UNSPACED}]|{_LETTERS}+(?:[{_MARKS}]+{_LETTERS}*)*"
