"""What a word is, in every script: a regular expression for TF-IDF and for texts that repeat."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, kana and Han, which put no spaces between words: a letter is a word, and pairs are what Lucene's
CJKAnalyzer counts; a run of them is a sentence that hardly ever comes again"""
_MARKS = "\u0300-\u036f\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
"""accents, and the vowels of Arabic and Indic scripts, which regular expressions take for no part of a word"""
_LETTERS = rf"[^\W{_UNSPACED}]"
WORD = rf"[{_UNSPACED}]|{_LETTERS}+(?:[{_MARKS}]+{_LETTERS}*)*"
