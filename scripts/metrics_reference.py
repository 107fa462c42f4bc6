#!/usr/bin/env python3
"""Scores by the reference implementations of the metrics, for random answers in many scripts.

usage: metrics_reference.py OUT LMMS_EVAL_WHEEL AAC_METRICS_FOLDER [COUNT=1000] [SEED=1]

    pip install --no-deps pycocoevalcap==1.2 sacrebleu==2.6.0 anls==0.0.2 && pip install numpy portalocker regex tabulate colorama lxml
    pip download --no-deps lmms-eval==0.7.3 && pip download --no-deps --no-binary aac-metrics aac-metrics==0.6.0

       metrics_reference.py typed OUT [COUNT=60] [SEED=1]

    pip install pycocotools==2.0.11 scikit-learn==1.9.1

Writes into OUT: answers.jsonl, one case a line: {"answer", "references", "scores"}; corpora.jsonl, {"from", "to", "scores"} over a run of these
cases; captions.jsonl, the cases of data/example_1.csv of `aac-metrics`, and their scores in the first line.
tasks/tests/fixtures/metrics is what COUNT 1000 and SEED 1 make, and of `typed` the defaults: typed.jsonl, one case a line, {"boxes"} or {"labels"}
or {"probabilities", "right"} with their "scores".
"""
import collections
import csv
import json
import pathlib
import random
import re
import string
import sys
import statistics
import zipfile

if sys.argv[1:2] != ["typed"]:
    from anls import anls_score
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    from pycocoevalcap.cider.cider_scorer import CiderScorer
    from pycocoevalcap.rouge.rouge import Rouge
    from sacrebleu.metrics import BLEU, CHRF

WORDS = [
    "a an the The A red apple's two Two none ten cats dont cant itd've she'd've isn't U.S. 1,000 1,000.5 3.5 5% 10.4 10 -- well-known (yes) no! e.g. &amp; &quot; "
    "<skipped> a-b 5-6 7- 2.. ..3 a/b [x] x_y @me `q` what? 12,a 1e3 1_000 +5 inf nan cat/dog 100 101 0 0.5 50% straße STRASSE",
    "Это красное яблоко на столе ДВА кот не-а «да» 7,5 Ёж",
    "το κόκκινο μήλο ΣΟΦΟΣ δύο γάτες είναι ; ΟΔΟΣ",
    "تفاحة حمراء على الطاولة ١٢ ٣٫٥ ١,٠٠٠ ، قطة؟",
    "लाल सेब मेज़ पर है दो बिल्ली १२ ।  aा theा",
    "红苹果在桌子上。 两只猫 我有2只 “你好”，世界！ 〇 𠀀 ⺀ —",
    "赤いリンゴ テーブルの上 ﾘﾝｺﾞ 猫が二匹います。 ＡＢＣ１２",
    "😀 👩‍👩‍👧 🇩🇪 ☀️ ❤ 🍎🍎 ½ İstanbul ǅ ﬁn",
]
SPACES = [" "] * 12 + ["  ", "\t", "\n", "\u00a0", "\u3000", "\u001f", "-\n", ", ", ". "]


def words_of(rng):
    return rng.choice(WORDS[:1] * 4 + WORDS).split()


def text(rng, words):
    length = rng.choice([0, 1, 1, 2, 3, 5, 8, 13])
    return "".join(rng.choice(words) + rng.choice(SPACES) for _ in range(length)) if rng.random() < 0.5 else " ".join(rng.choices(words, k=length))


def edited(rng, words, whole):
    parts = whole.split(" ")
    for _ in range(rng.choice([0, 0, 1, 2, 4])):
        at = rng.randrange(len(parts))
        parts[at] = rng.choice([parts[at].upper(), rng.choice(words), parts[at] + rng.choice(".,?!'s"), ""])
    return " ".join(parts)


def case(rng):
    words = words_of(rng)
    answer = text(rng, words)
    references = [edited(rng, words, answer) if rng.random() < 0.7 else text(rng, words) for _ in range(rng.choice([1, 1, 2, 3, 5, 10]))]
    return answer, references


def squad_words(answer):
    plain = "".join(c for c in answer.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def squad_f1(answer, reference):
    found, expected = squad_words(answer), squad_words(reference)
    if not found or not expected:
        return float(found == expected)
    shared = sum((collections.Counter(found) & collections.Counter(expected)).values())
    return 2 * shared / (len(found) + len(expected)) if shared else 0.0


def vqa(processor, answer, references):
    def plain(given):
        given = given.replace("\n", " ").replace("\t", " ").strip()
        return processor.process_digit_article(processor.process_punctuation(given))
    answer, references = plain(answer), [plain(reference) for reference in references]
    others = [[r for j, r in enumerate(references) if j != i] for i in range(len(references))]
    return statistics.mean(min(1, float(left.count(answer)) / 3) for left in others)


def corpus_scores(cases):
    bleu, cider = BleuScorer(n=4), CiderScorer(n=4)
    for answer, references in cases:
        bleu += (answer, references)
        cider += (answer, references)
    answers, most = [answer for answer, _ in cases], max(len(references) for _, references in cases)
    streams = [[references[i] if i < len(references) else None for _, references in cases] for i in range(most)]
    scores = {"bleu": [float(score) for score in bleu.compute_score("closest")[0]], "cider_d": float(cider.compute_score()[0]),
              "rouge_l": float(Rouge().compute_score({i: r for i, (_, r) in enumerate(cases)}, {i: [a] for i, (a, _) in enumerate(cases)})[0])}
    for tokenizer in ["13a", "zh", "char"]:
        scores[tokenizer] = BLEU(tokenize=tokenizer, force=True).corpus_score(answers, streams).score
    scores["chrf"], scores["chrf++"] = (CHRF(word_order=order).corpus_score(answers, streams).score for order in (0, 2))
    return scores


def write(path, lines):
    path.write_text("".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines), encoding="utf-8")


def random_box(rng, near=None):
    if near:
        return [round(edge + rng.uniform(-6, 6), 1) for edge in near]
    x, y = rng.uniform(0, 80), rng.uniform(0, 80)
    return [round(edge, 1) for edge in (x, y, x + rng.uniform(5, 40), y + rng.uniform(5, 40))]


def random_pictures(rng):
    pictures, labels = [], ["cat", "dog", "sun"][:rng.choice([1, 2, 3])]
    for _ in range(rng.choice([1, 2, 4, 8])):
        expected = [{"label": rng.choice(labels), "box": random_box(rng), "crowd": rng.random() < 0.15} for _ in range(rng.choice([0, 1, 2, 4]))]
        near = [{"label": rng.choice(labels + [e["label"]] * 5), "box": random_box(rng, e["box"])} for e in expected for _ in range(rng.choice([0, 1, 1, 2]))]
        found = near + [{"label": rng.choice(labels), "box": random_box(rng)} for _ in range(rng.choice([0, 0, 1, 3]))]
        rng.shuffle(found)
        pictures.append({"expected": expected, "found": [{**f, "score": round(rng.random(), 2)} for f in found]})
    return pictures


def coco_evaluation(pictures):
    import contextlib
    import io
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    names = sorted({b["label"] for p in pictures for b in p["expected"] + p["found"]})
    annotations, found = [], []
    for at, picture in enumerate(pictures):
        for box in picture["expected"] + picture["found"]:
            x0, y0, x1, y1 = box["box"]
            w, h = max(x1 - x0, 0), max(y1 - y0, 0)
            record = {"image_id": at, "category_id": names.index(box["label"]) + 1, "bbox": [x0, y0, w, h], "area": w * h}
            if "score" in box:
                found.append({**record, "score": box["score"]})
            else:
                annotations.append({**record, "id": len(annotations) + 1, "iscrowd": int(box["crowd"])})
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {"images": [{"id": at} for at in range(len(pictures))], "annotations": annotations,
                             "categories": [{"id": at + 1, "name": name} for at, name in enumerate(names)], "info": {}}
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation, len(names)


def voc_all_points(evaluation, labels, pictures):
    """The area under the envelope at IoU 0.5, from the matches of `pycocotools`."""
    import numpy as np
    areas = []
    for label in range(labels):
        start = label * len(evaluation.params.areaRng) * pictures  # The first range of areas is that of all boxes.
        images = [image for image in evaluation.evalImgs[start:start + pictures] if image]
        expected = sum(int((~np.array(image["gtIgnore"], dtype=bool)).sum()) for image in images)
        if not expected:
            continue
        order = np.argsort(-np.concatenate([image["dtScores"] for image in images]), kind="mergesort")
        ignored = np.concatenate([image["dtIgnore"][0] for image in images])[order].astype(bool)
        right = (np.concatenate([image["dtMatches"][0] for image in images])[order] > 0)[~ignored]
        recall = np.concatenate([[0], np.cumsum(right) / expected, [1]])
        precision = np.concatenate([[0], np.cumsum(right) / np.arange(1, len(right) + 1), [0]])
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        areas.append(float(np.sum((recall[1:] - recall[:-1]) * precision[1:])))
    return sum(areas) / len(areas)


def box_scores(pictures):
    evaluation, labels = coco_evaluation(pictures)
    return {"coco": float(evaluation.stats[0]), "coco_50": float(evaluation.stats[1]), "voc_50": voc_all_points(evaluation, labels, len(pictures))}


def label_scores(cases):
    from sklearn.metrics import f1_score
    from sklearn.preprocessing import MultiLabelBinarizer
    rows = MultiLabelBinarizer(classes=list("abcdef")).fit_transform([expected for expected, _ in cases] + [found for _, found in cases])
    expected, found = rows[:len(cases)], rows[len(cases):]
    return {"micro": f1_score(expected, found, average="micro", zero_division=1), "samples": f1_score(expected, found, average="samples", zero_division=1)}


def calibration_scores(probabilities, right):
    """ECE is written again from section 2 of Guo et al. 2017; the rest is of scikit-learn and scipy."""
    import numpy as np
    from scipy.optimize import minimize_scalar
    from scipy.special import softmax
    from sklearn.metrics import brier_score_loss, log_loss
    p, right = np.array(probabilities), np.array(right)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == right
    error, edges = 0.0, np.linspace(0, 1, 16)
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    answers = list(range(p.shape[1]))
    loss = lambda log_t: log_loss(right, softmax(np.log(p) / np.exp(log_t), axis=1), labels=answers)
    fit = minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded", options={"xatol": 1e-10})
    return {"ece": float(error), "brier": float(brier_score_loss(right, p, labels=answers, scale_by_half=False)), "nll": float(loss(0)),
            "temperature": float(np.exp(fit.x)), "fitted_nll": float(fit.fun)}


def typed(out, count, seed):
    rng, lines = random.Random(seed), []
    while len(lines) < count:
        pictures = random_pictures(rng)
        # `pycocotools` fails where nothing was found, and says -1 where nothing was expected.
        if any(p["found"] for p in pictures) and any(not e["crowd"] for p in pictures for e in p["expected"]):
            lines.append({"boxes": pictures, "scores": box_scores(pictures)})
    for _ in range(count // 4):
        cases = [[rng.sample("abcdef", rng.choice([0, 1, 2, 3])) for _ in range(2)] for _ in range(rng.choice([1, 3, 9]))]
        lines.append({"labels": cases, "scores": label_scores(cases)})
    for _ in range(count // 4):
        answers, sharp, rows, right = rng.choice([2, 3, 5]), rng.choice([1, 3]), [], []
        for _ in range(rng.choice([10, 30])):
            weights = [rng.random() ** sharp + 1e-3 for _ in range(answers)]
            row = [round(weight / sum(weights), 4) for weight in weights]
            rows.append([round(row[0] + 1 - sum(row), 4)] + row[1:])
            right.append(rng.choices(range(answers), weights)[0] if rng.random() < 0.8 else rng.randrange(answers))
        lines.append({"probabilities": rows, "right": right, "scores": calibration_scores(rows, right)})
    write(out / "typed.jsonl", lines)


def main():
    if sys.argv[1:2] == ["typed"]:
        return typed(pathlib.Path(sys.argv[2]), *(int(argument) for argument in (sys.argv[3:] + ["60", "1"][len(sys.argv) - 3:])))
    out, wheel, captions = (pathlib.Path(argument) for argument in sys.argv[1:4])
    count, seed = (int(argument) for argument in (sys.argv[4:] + ["1000", "1"][len(sys.argv) - 4:]))
    rng, names = random.Random(seed), {}
    with zipfile.ZipFile(wheel) as files:
        exec(files.read("lmms_eval/tasks/_task_utils/vqa_eval_metric.py"), names)
        relaxed = files.read("lmms_eval/tasks/chartqa/utils.py").decode()
        exec(relaxed[relaxed.index("def relaxed_correctness"):], names)
    processor, cases = names["EvalAIAnswerProcessor"](), [case(rng) for _ in range(count)]
    write(out / "answers.jsonl", ({"answer": a, "references": r, "scores": {
        "vqa_accuracy": vqa(processor, a, r), "relaxed_match": max(float(names["relaxed_correctness"](a, x)) for x in r), "anls": anls_score(a, r),
        "token_f1": max(squad_f1(a, x) for x in r), "rouge_l": Rouge().calc_score([a], r)}} for a, r in cases))
    runs = [(at, at + length) for length in (1, 10, 100) for at in range(0, count, length) if length > 1 or at % 10 == 0] + [(0, count)]
    # CIDEr of `pycocoevalcap` fails where no reference has a word.
    runs = [(a, b) for a, b in runs if any(reference.split() for _, references in cases[a:b] for reference in references)]
    write(out / "corpora.jsonl", ({"from": a, "to": b, "scores": corpus_scores(cases[a:b])} for a, b in runs))
    with open(captions / "data" / "example_1.csv", encoding="utf-8") as rows:
        real = [(row[0], row[1:]) for row in list(csv.reader(rows))[1:]]
    write(out / "captions.jsonl", [{"scores": corpus_scores(real)}] + [{"answer": a, "references": r} for a, r in real])


if __name__ == "__main__":
    main()
