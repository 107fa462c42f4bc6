#!/usr/bin/env python3
"""Renders templates of promptsource and lm-evaluation-harness by their own code, for `tasks/tests/import_reference.rs`.

    pip download --no-deps --ignore-requires-python promptsource==0.2.3
    pip download --no-deps lm-eval==0.4.13
    tar xzf promptsource-0.2.3.tar.gz && unzip lm_eval-0.4.13-py3-none-any.whl
    pip install jinja2==3.1.6 pyyaml==6.0.3
    python scripts/import_reference.py promptsource-0.2.3 lm_eval tasks/tests/fixtures/import

It writes `reference.jsonl`, a line for each template: its YAML, and rows with what they render to. Rows are
made up, from what a template does with each column. What draws at random takes the first, as the import does.
With `--all`, every template is rendered, and not a sample.
"""

import argparse
import ast
import functools
import importlib.util
import json
import pathlib
import random
import sys
import types

import jinja2
import yaml
from jinja2 import nodes

# How many templates of each library are in the sample, and from how many files it is drawn.
SAMPLE = {"promptsource": 180, "lm-evaluation-harness": 50}
FILES = {"promptsource": 80, "lm-evaluation-harness": 1_500}
# The longest YAML of a template in the sample.
MAX_YAML = 2_300

TEXTS = [
    "a cat",
    "The dog's toy.",
    "two\nlines",
    " spaces ",
    'a "quoted" word',
    "Straße 7, 北京",
    "</s> <extra_id_0> {{ x }}",
    "back\\slash",
    "seven",
]
# Promptsource takes the separator for text in a column that is a text, and not inside of a list.
SEPARATED = "one ||| two"


class Shape:
    """What a value has to be for a template to render."""

    def __init__(self):
        self.kind = None
        self.values = []
        self.members = {}
        self.item = None

    def be(self, kind):
        if self.kind is None or (self.kind == "text" and kind in ("list", "dict")):
            self.kind = kind
        return self

    def member(self, name):
        self.be("dict")
        return self.members.setdefault(name, Shape())

    def element(self):
        self.be("list")
        self.item = self.item or Shape()
        return self.item

    def make(self, draw):
        if self.kind == "dict":
            return {name: shape.make(draw) for name, shape in self.members.items()}
        if self.kind == "list":
            return [(self.item or Shape()).make(draw) for _ in range(4)]
        if self.kind == "int":
            return draw.choice([value for value in self.values if isinstance(value, int)] or [0, 1])
        texts = [value for value in self.values if isinstance(value, str)]
        return draw.choice(texts) if texts and draw.random() < 0.8 else draw.choice(TEXTS)


class Shapes:
    """Follows the columns through a template."""

    def __init__(self):
        self.columns = {}
        self.scopes = [{}]

    def name(self, name):
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        if name in ("answer_choices", "loop", "range", "namespace", "zip"):
            return Shape()
        return self.columns.setdefault(name, Shape())

    def assign(self, target, shape):
        if isinstance(target, nodes.Name):
            self.scopes[-1][target.name] = shape
        elif isinstance(target, (nodes.Tuple, nodes.List)):
            for item in target.items:
                self.assign(item, shape.element() if shape.kind == "list" else Shape())

    def expr(self, node):
        if isinstance(node, nodes.Name):
            return self.name(node.name)
        if isinstance(node, nodes.Getattr):
            return self.expr(node.node).member(node.attr)
        if isinstance(node, nodes.Getitem):
            return self.subscript(node)
        if isinstance(node, nodes.Filter):
            return self.filter(node)
        if isinstance(node, nodes.Call):
            return self.call(node)
        if isinstance(node, nodes.Compare):
            return self.compare(node)
        if isinstance(node, nodes.CondExpr):
            self.expr(node.test)
            shape = self.expr(node.expr1)
            if node.expr2 is not None:
                self.expr(node.expr2)
            return shape
        if isinstance(node, nodes.Add):
            left, right = self.expr(node.left), self.expr(node.right)
            for one, other in ((left, node.right), (right, node.left)):
                if isinstance(other, nodes.Const) and isinstance(other.value, str):
                    one.be("text")
                elif isinstance(other, nodes.Const):
                    one.be("int")
            return Shape()
        if isinstance(node, (nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod)):
            for side in (node.left, node.right):
                self.expr(side).be("int")
            return Shape()
        for child in node.iter_child_nodes():
            self.expr(child)
        return Shape()

    def subscript(self, node):
        base = self.expr(node.node)
        if isinstance(node.arg, nodes.Slice):
            for bound in (node.arg.start, node.arg.stop, node.arg.step):
                if bound is not None:
                    self.expr(bound).be("int")
            return base
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            return base.member(node.arg.value)
        index = self.expr(node.arg)
        if isinstance(node.node, nodes.Dict):
            keys = [pair.key.value for pair in node.node.items if isinstance(pair.key, nodes.Const)]
            index.values += keys
            index.be("text" if keys and isinstance(keys[0], str) else "int")
            return Shape()
        index.be("int")
        return base.element()

    def filter(self, node):
        base = self.expr(node.node) if node.node is not None else Shape()
        for argument in node.args:
            self.expr(argument)
        if node.name in ("first", "last", "choice", "random", "min", "max"):
            return base.element()
        if node.name in ("join", "unique", "reject", "select", "sort", "list", "reverse"):
            base.element()
            return base
        if node.name == "length":
            base.be("list") if base.kind is None else None
            return Shape()
        if node.name in ("int", "float", "abs", "round"):
            base.be("int")
            return Shape()
        base.be("text")
        return Shape()

    def call(self, node):
        for argument in node.args:
            shape = self.expr(argument)
            if isinstance(node.node, nodes.Name) and node.node.name == "range":
                shape.be("int")
        if not isinstance(node.node, nodes.Getattr):
            return Shape()
        base = self.expr(node.node.node)
        if node.node.attr == "index":
            element = base.element()
            if node.args:
                value = self.expr(node.args[0])
                value.be("text")
                value.values.append("a cat")
                element.values.append("a cat")
        elif node.node.attr in ("items", "keys", "values"):
            base.be("dict")
        else:
            base.be("text")
        return Shape()

    def compare(self, node):
        left = self.expr(node.expr)
        for operand in node.ops:
            right = self.expr(operand.expr)
            if isinstance(operand.expr, nodes.Const):
                value = operand.expr.value
                if isinstance(value, (str, int)) and not isinstance(value, bool):
                    left.be("text" if isinstance(value, str) else "int")
                    left.values.append(value)
            elif operand.op in ("in", "notin") and isinstance(operand.expr, (nodes.List, nodes.Tuple)):
                for item in operand.expr.items:
                    if isinstance(item, nodes.Const):
                        left.be("text" if isinstance(item.value, str) else "int")
                        left.values.append(item.value)
            elif operand.op in ("in", "notin"):
                right.be("text")
        return Shape()

    def statement(self, node):
        if isinstance(node, nodes.Assign):
            self.assign(node.target, self.expr(node.node))
        elif isinstance(node, nodes.For):
            shape = self.expr(node.iter)
            plain = isinstance(node.iter, (nodes.Name, nodes.Getattr, nodes.Getitem))
            self.scopes.append({"loop": Shape()})
            self.assign(node.target, shape.element() if plain else Shape())
            if node.test is not None:
                self.expr(node.test)
            for child in node.body + node.else_:
                self.statement(child)
            self.scopes.pop()
        elif isinstance(node, nodes.If):
            self.expr(node.test)
            for child in node.body + node.elif_ + node.else_:
                self.statement(child)
        elif isinstance(node, nodes.Output):
            for child in node.nodes:
                if not isinstance(child, nodes.TemplateData):
                    self.expr(child)
        else:
            for child in node.iter_child_nodes():
                self.statement(child)


def rows(env, sources, draw):
    """Makes up rows for some templates."""
    shapes = Shapes()
    for source in sources:
        for node in env.parse(source).body:
            shapes.statement(node)
    made = [{name: shape.make(draw) for name, shape in shapes.columns.items()} for _ in range(3)]
    for name, shape in shapes.columns.items():
        if shape.kind == "text" and not shape.values and "split" not in "".join(sources):
            made[0][name] = SEPARATED
    return made


def of_text(name, function):
    """Refuses a filter of text for a list: a made-up row has the wrong type then."""

    def checked(value, *args, **kwargs):
        if not isinstance(value, (str, int, float)):
            raise TypeError(name)
        return function(value, *args, **kwargs)

    return checked


def check_types(env):
    for name in ("trim", "capitalize", "lower", "upper", "title"):
        env.filters[name] = of_text(name, env.filters[name])


def load_promptsource(folder):
    """Loads `templates.py` as it is, without pandas and setuptools, which rendering does not need."""
    pandas = types.ModuleType("pandas")
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda *_: str(folder / "promptsource" / "templates")
    sys.modules.update(pandas=pandas, pkg_resources=resources)
    spec = importlib.util.spec_from_file_location("templates", folder / "promptsource" / "templates.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("choice", "random"):
        module.env.filters[name] = lambda items: list(items)[0]
    check_types(module.env)
    # Names that are not defined are errors in task files, and nothing in promptsource: such rows are left out.
    module.env.undefined = jinja2.StrictUndefined
    return module


def drawn(library, paths, everything):
    """Draws the files of the sample."""
    paths = sorted(paths)
    return paths if everything else random.Random(library).sample(paths, FILES[library])


def promptsource_cases(folder, everything):
    module = load_promptsource(folder)
    paths = (folder / "promptsource" / "templates").rglob("templates.yaml")
    for path in drawn("promptsource", paths, everything):
        collection = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.FullLoader)
        for key, template in collection["templates"].items():
            one = {name: value for name, value in collection.items() if name != "templates"}
            one["templates"] = {key: template}
            text = yaml.dump(one, allow_unicode=True, sort_keys=False, width=120)
            sources = [template.answer_choices or "", template.jinja]
            yield text, promptsource_rows(module, sources, template, key)


def promptsource_rows(module, sources, template, key):
    for row in rows(module.env, sources, random.Random(key)):
        try:
            parts = template.apply(row, truncate=False)
            choices = template.get_answer_choices_list(row)
        except Exception:
            continue
        if len(parts) == 2 and parts[0]:
            yield {"row": row, "prompt": parts[0], "target": parts[1] or None, "choices": choices}


def function(loader, node):
    return "!function " + node.value


class HarnessLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    pass


HarnessLoader.add_constructor("!function", function)


@functools.cache
def harness_config(path):
    config = yaml.load(path.read_text(encoding="utf-8"), Loader=HarnessLoader)
    includes = config.pop("include", None) if isinstance(config, dict) else None
    merged = {}
    for name in [includes] if isinstance(includes, str) else includes or []:
        merged.update(harness_config((path.parent / name).resolve()))
    merged.update(config)
    return merged


# As `lm_eval/utils.py` makes it.
HARNESS = jinja2.Environment(
    loader=jinja2.BaseLoader(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
)


def harness_cases(folder, everything):
    check_types(HARNESS)
    seen = set()
    for path in drawn("lm-evaluation-harness", (folder / "tasks").rglob("*.yaml"), everything):
        try:
            config = harness_config(path)
        except Exception:
            continue
        keys = ("description", "doc_to_text", "doc_to_target", "doc_to_choice", "output_type")
        values = [config.get(key) for key in keys]
        if not isinstance(config.get("task"), str) or not config.get("doc_to_text") or str(values) in seen:
            continue
        seen.add(str(values))
        if any("!function" in str(value) for value in values):
            continue
        kept = ("task", "dataset_path", "dataset_name", *keys, "metric_list", "generation_kwargs", "target_delimiter")
        text = yaml.dump(
            {key: config[key] for key in kept if key in config}, allow_unicode=True, sort_keys=False, width=120
        )
        yield text, harness_rows(config, path)


def is_column(value):
    return isinstance(value, str) and value.isidentifier()


def render(value, row):
    return row[value] if is_column(value) else HARNESS.from_string(value).render(**row)


def harness_target(config, row, choices):
    """`ConfigurableTask.doc_to_target`, and the answer at the index that it gives."""
    target = config.get("doc_to_target")
    if isinstance(target, str):
        target = render(target, row)
        if choices is not None and str(target).isdigit():
            target = int(target)
    if choices is not None and config.get("output_type") == "multiple_choice" and isinstance(target, int):
        return str(choices[target])
    return None if target is None else str(target)


def harness_rows(config, path):
    values = [config.get(key) for key in ("description", "doc_to_text", "doc_to_target", "doc_to_choice")]
    sources = [f"{{{{ {value} }}}}" if is_column(value) else value for value in values if isinstance(value, str)]
    if is_column(values[3]):
        sources.append("{{ %s[0] }}" % values[3])
    multiple = config.get("output_type") == "multiple_choice"
    if multiple and is_column(values[2]):
        sources.append("{{ [1, 2][%s] }}" % values[2])
    try:
        made = rows(HARNESS, sources, random.Random(path.name))
    except Exception:
        return
    for row in made:
        try:
            choices = config.get("doc_to_choice")
            if isinstance(choices, str):
                choices = row[choices] if is_column(choices) else ast.literal_eval(render(choices, row))
            elif isinstance(choices, dict):
                choices = list(choices.values())
            description = HARNESS.from_string(config.get("description") or "").render(**row)
            prompt = description + str(render(config["doc_to_text"], row))
            target = harness_target(config, row, choices)
        except Exception:
            continue
        if prompt.strip():
            listed = [str(choice) for choice in choices] if choices is not None and multiple else None
            yield {"row": row, "prompt": prompt, "target": target if (target or "").strip() else None, "choices": listed}


def can_choose(choices):
    """Answers have to differ, and to be no blank; a made-up row cannot always help that."""
    return choices is None or (len(set(choices)) == len(choices) and all(choice.strip() for choice in choices))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("promptsource", type=pathlib.Path)
    parser.add_argument("lm_eval", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    libraries = {
        "promptsource": promptsource_cases(options.promptsource, options.all),
        "lm-evaluation-harness": harness_cases(options.lm_eval, options.all),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / "reference.jsonl", "w", encoding="utf-8") as out:
        for library, cases in libraries.items():
            good = []
            for text, made in cases:
                kept = [row for row in made if can_choose(row["choices"])][:2]
                if kept:
                    good.append({"library": library, "yaml": text, "rows": kept})
            print(f"{library}: {len(good)} templates render", file=sys.stderr)
            if not options.all:
                small = [case for case in good if len(json.dumps(case)) <= MAX_YAML]
                draw = random.Random(library)
                good = draw.sample(small, min(len(small), SAMPLE[library]))
            for case in good:
                out.write(json.dumps(case, ensure_ascii=False) + "\n")


main()
