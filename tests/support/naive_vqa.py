"""The rules of the official VQA evaluation again, letter by letter: no pattern, no derived table, nothing shared."""

from __future__ import annotations

MARKS = [";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!"]
SMALL = "none zero one two three four five six seven eight nine ten".split()
DIGITS = "0 0 1 2 3 4 5 6 7 8 9 10".split()
# Every entry of the official table that can be met in a text of lower case, and changes it.
CONTRACTIONS = dict(
    pair.split(">")
    for pair in """
aint>ain't arent>aren't cant>can't couldve>could've couldnt>couldn't couldn'tve>couldn't've couldnt've>couldn't've
didnt>didn't doesnt>doesn't dont>don't hadnt>hadn't hadnt've>hadn't've hadn'tve>hadn't've hasnt>hasn't havent>haven't
hed>he'd hed've>he'd've he'dve>he'd've hes>he's howd>how'd howll>how'll hows>how's isnt>isn't itd>it'd itd've>it'd've
it'dve>it'd've itll>it'll maam>ma'am mightnt>mightn't mightnt've>mightn't've mightn'tve>mightn't've mightve>might've
mustnt>mustn't mustve>must've neednt>needn't notve>not've oclock>o'clock oughtnt>oughtn't ow's'at>'ow's'at
'ows'at>'ow's'at 'ow'sat>'ow's'at shant>shan't shed've>she'd've she'dve>she'd've shouldve>should've shouldnt>shouldn't
shouldnt've>shouldn't've shouldn'tve>shouldn't've somebody'd>somebodyd somebodyd've>somebody'd've
somebody'dve>somebody'd've somebodyll>somebody'll somebodys>somebody's someoned>someone'd someoned've>someone'd've
someone'dve>someone'd've someonell>someone'll someones>someone's somethingd>something'd somethingd've>something'd've
something'dve>something'd've somethingll>something'll thats>that's thered>there'd thered've>there'd've
there'dve>there'd've therere>there're theres>there's theyd>they'd theyd've>they'd've they'dve>they'd've theyll>they'll
theyre>they're theyve>they've twas>'twas wasnt>wasn't wed've>we'd've we'dve>we'd've weve>we've werent>weren't
whatll>what'll whatre>what're whats>what's whatve>what've whens>when's whered>where'd wheres>where's whereve>where've
whod>who'd whod've>who'd've who'dve>who'd've wholl>who'll whos>who's whove>who've whyll>why'll whyre>why're whys>why's
wont>won't wouldve>would've wouldnt>wouldn't wouldnt've>wouldn't've wouldn'tve>wouldn't've yall>y'all yall'll>y'all'll
y'allll>y'all'll yall'd've>y'all'd've y'alld've>y'all'd've y'all'dve>y'all'd've youd>you'd youd've>you'd've
you'dve>you'd've youll>you'll youre>you're youve>you've
""".split()
)


def first_line_step(text: str) -> str:
    cleaned = ""
    for letter in text:
        cleaned += " " if letter in "\n\t" else letter
    return cleaned.strip()


def without_marks(text: str) -> str:
    number_with_comma = False
    for i in range(len(text) - 2):
        if text[i].isdecimal() and text[i + 1] == "," and text[i + 2].isdecimal():
            number_with_comma = True
    yet = text
    for mark in MARKS:
        beside_a_blank = False
        for i in range(len(text) - 1):
            if text[i : i + 2] in (mark + " ", " " + mark):
                beside_a_blank = True
        # The text is searched as it was given, so the letters that are replaced meanwhile change nothing.
        replaced = "" if beside_a_blank or number_with_comma else " "
        yet = "".join(replaced if letter == mark else letter for letter in yet)
    removed, kept = 0, ""
    for i, letter in enumerate(yet):
        before_a_digit = i + 1 < len(yet) and yet[i + 1].isdecimal()
        if letter == "." and not before_a_digit and removed < 32:
            removed += 1
        else:
            kept += letter
    return kept


def without_articles(text: str) -> str:
    words = []
    for word in text.lower().split():
        for name, digits in zip(SMALL, DIGITS, strict=True):
            if word == name:
                word = digits
                break
        if word == "a" or word == "an" or word == "the":
            continue
        words.append(word)
    for i, word in enumerate(words):
        for wrong, right in CONTRACTIONS.items():
            if word == wrong:
                words[i] = right
    return " ".join(words)


def accuracy(prediction: str, answers: list[str], rules: str) -> float:
    """Of one question, 0 … 1."""
    prediction = first_line_step(prediction)
    people = list(answers)
    if rules == "2021":
        people = [first_line_step(answer) for answer in people]
    all_alike = all(answer == people[0] for answer in people)
    if rules == "2016" or not all_alike:
        prediction = without_articles(without_marks(prediction))
    if not all_alike:
        people = [without_marks(answer) for answer in people]
        if rules == "2021":
            people = [without_articles(answer) for answer in people]
    total = 0.0
    for left_out in range(len(people)):
        agreeing = 0
        for other in range(len(people)):
            if other != left_out and people[other] == prediction:
                agreeing += 1
        total += 1.0 if agreeing >= 3 else agreeing / 3
    return total / len(people)
