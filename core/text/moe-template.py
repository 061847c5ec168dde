#!/usr/bin/python3 -IB
# SPDX-License-Identifier: Apache-2.0
"""moe-template - fill in a model's chat template.

Reads JSON requests from standard input, one a line, and answers each with
one line of JSON on standard output, until the input ends:

    {"template": "...", "messages": [{"role": "user", "content": "..."}],
     "add_generation_prompt": true, "tokens": {"bos_token": "<s>"}}
    {"text": "...", "user": [first, past, ...]}       or
    {"error": "...", "kind": "refused"}               (or another kind)

The first line, before any request, is {"ready": 1}, or {"missing": "jinja2"}.
"user" holds ranges of the text's UTF-8 bytes that came from contents.

Owns the rendering: what transformers does, by the same Jinja, in a sandbox,
under limits of memory.  Leaves to template.c: finding the template, the
clock, and ending this process when a template does not end.

Templates cut, trim and join contents before they print them, so quotes
around a content would be in the way.  Instead a content is a Marked: a str
with one byte for each character, 1 where a user wrote it.  What templates
mostly do (slices, strip, split, replace, join, +, ~, blocks and macros) keeps
exact track.  Any other function from strings to a string runs a second time
with characters that occur nowhere else around what users wrote; where that
does not give the same text, all of it counts as the users'.  A plain
rendering at the end shows that the marks changed nothing.
"""
import functools
import json
import operator
import os
import random
import resource
import signal
import sys
import types
from datetime import datetime

try:
    import jinja2
    import jinja2.ext
    import jinja2.filters
    import jinja2.nodes
    import jinja2.runtime
    import jinja2.sandbox
    from markupsafe import Markup
except ImportError as e:
    os.write(1, (json.dumps({"missing": e.name or "jinja2"}) + "\n").encode())
    sys.exit(1)

MAX_TEXT = 16 << 20      # bytes of a finished prompt
MAX_RANGES = 1 << 16     # stretches of user text in it
MAX_MEMORY = 1 << 30     # bytes of address space
MAX_SECONDS = 15         # the parent's clock is shorter; this is for when it
                         # is gone
MAX_DEPTH = 16           # lists within lists that are searched for contents
KEPT_TEMPLATES = 4


class Refused(jinja2.TemplateError):
    """raise_exception in a template."""


class TooLong(Exception):
    pass


# --- strings that know who wrote them ---------------------------------------

def bare(s):
    """The same text as an exact str."""
    return "".join((s,))


def make(text, mask):
    return Marked(text, mask) if 1 in mask else bare(text)


def mask_of(s):
    return s._mask if isinstance(s, Marked) else bytes(len(s))


def glue(parts):
    """Joins strings; their marks stay."""
    held, size, marked = [], 0, False
    for s in parts:
        size += len(s)
        if size > MAX_TEXT:
            raise TooLong
        marked = marked or isinstance(s, Marked)
        held.append(s)
    text = "".join(held)
    if not marked:
        return text
    return make(text, b"".join(map(mask_of, held)))


class Marked(str):
    """A str with a byte for each character: 1, a user wrote it.  Without a
    mask all of it is a user's, so that a forgotten path errs that way."""

    def __new__(cls, text="", mask=None):
        self = super().__new__(cls, bare(text))
        self._mask = b"\1" * len(text) if mask is None else mask
        return self

    def __str__(self):
        return self

    def __add__(self, other):
        if not isinstance(other, str):
            return NotImplemented
        return glue((self, other))

    def __radd__(self, other):
        if not isinstance(other, str):
            return NotImplemented
        return glue((other, self))

    def __mul__(self, n):
        text = str.__mul__(self, n)
        return text if text is NotImplemented else make(text, self._mask * n)

    __rmul__ = __mul__

    def __getitem__(self, key):
        text = str.__getitem__(self, key)
        if not isinstance(key, slice):
            key = operator.index(key) % len(self)
            key = slice(key, key + 1)
        return make(text, self._mask[key])

    def __iter__(self):
        for c, m in zip(str.__iter__(self), self._mask):
            yield Marked(c, b"\1") if m else c

    def _part(self, at, length):
        return self[at:at + length]

    def _parts(self, texts, gap=None):
        """texts: pieces of this string in order, gap characters between
        them, or white space that does not begin a piece."""
        at, out = 0, []
        for t in texts:
            if gap is None:
                at = str.find(self, t, at)
            out.append(self._part(at, len(t)))
            at += len(t) + (gap or 0)
        return out

    def strip(self, chars=None):
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars=None):
        n = len(str.lstrip(self, chars))
        return self[len(self) - n:]

    def rstrip(self, chars=None):
        return self[:len(str.rstrip(self, chars))]

    def removeprefix(self, prefix):
        return self[len(self) - len(str.removeprefix(self, prefix)):]

    def removesuffix(self, suffix):
        return self[:len(str.removesuffix(self, suffix))]

    def split(self, sep=None, maxsplit=-1):
        return self._parts(str.split(self, sep, maxsplit),
                           None if sep is None else len(sep))

    def rsplit(self, sep=None, maxsplit=-1):
        return self._parts(str.rsplit(self, sep, maxsplit),
                           None if sep is None else len(sep))

    def splitlines(self, keepends=False):
        at, out = 0, []
        for text, whole in zip(str.splitlines(self),
                               str.splitlines(self, True)):
            out.append(self._part(at, len(whole if keepends else text)))
            at += len(whole)
        return out

    def partition(self, sep):
        return tuple(self._parts(str.partition(self, sep), 0))

    def rpartition(self, sep):
        return tuple(self._parts(str.rpartition(self, sep), 0))

    def replace(self, old, new, count=-1):
        if old == "":
            return Marked(str.replace(self, old, new, count))
        return weave(new, self.split(old, count))

    def join(self, items):
        return weave(self, items)

    def encode(self, *_args, **_kwargs):
        raise TypeError("a content cannot become bytes here")


def weave(sep, items):
    def each():
        first = True
        for s in items:
            if not isinstance(s, str):
                raise TypeError(f"cannot join a {type(s).__name__}")
            if not first:
                yield sep
            first = False
            yield s
    return glue(each())


def holds_marked(x, depth=0):
    if isinstance(x, str):
        return isinstance(x, Marked)
    if isinstance(x, dict):
        return (depth == MAX_DEPTH
                or any(holds_marked(v, depth + 1) for v in x.values())
                or any(isinstance(k, Marked) for k in x))
    if isinstance(x, (list, tuple, set, frozenset)):
        return depth == MAX_DEPTH or any(holds_marked(v, depth + 1)
                                         for v in x)
    return False


class Quotes:
    """Two characters that occur nowhere in a request, to stand around what
    users wrote while a function runs that Marked cannot follow."""

    def __init__(self):
        self.left, self.right = "", ""

    def choose(self, text):
        free = (c for c in map(chr, range(0xF0000, 0xFFFFE))
                if c not in text)
        self.left, self.right = next(free), next(free)

    def put(self, x):
        if isinstance(x, Marked):
            out, at = [], 0
            for a, b in ranges(x._mask):
                out += [str.__getitem__(x, slice(at, a)), self.left,
                        str.__getitem__(x, slice(a, b)), self.right]
                at = b
            return "".join(out) + str.__getitem__(x, slice(at, None))
        if type(x) in (list, tuple, set, frozenset):
            return type(x)(self.put(v) for v in x)
        if isinstance(x, dict):
            return {self.put(k): self.put(v) for k, v in x.items()}
        return x

    def take(self, text):
        """The string back, or None if the quotes do not pair."""
        out = []
        first, *rest = text.split(self.left)
        if self.right in first:
            return None
        out.append(first)
        for s in rest:
            user, right, other = s.partition(self.right)
            if not right or self.right in other:
                return None
            out += [Marked(user), other]
        return glue(out)


def ranges(mask):
    out, at = [], mask.find(1)
    while at >= 0:
        end = mask.find(0, at)
        if end < 0:
            end = len(mask)
        out.append((at, end))
        at = mask.find(1, end)
    return out


quotes = Quotes()


def settle(out, again, inputs, exact=True):
    """out: what a function gave for inputs.  If it is a string and what users
    wrote went in, find where it came out; again runs the function on other
    inputs.  exact: where out is a Marked, its marks are whole.  (A filter may
    have joined a Marked with what an exact str's method gave.)"""
    if isinstance(out, Markup):
        out = bare(out)
    if not isinstance(out, str) or out == "" or not holds_marked(inputs) \
            or (exact and isinstance(out, Marked)):
        return out
    try:
        quoted = again(quotes.put(inputs))
        found = quotes.take(bare(quoted))
        if found is not None and found == out and isinstance(found, Marked):
            return found
    except (MemoryError, TooLong):
        raise
    except Exception:
        pass
    return Marked(out)


def printed(x):
    """What {{ x }} shows, before str()."""
    if not isinstance(x, str) and holds_marked(x):
        return Marked(str(x))
    return x


def joined(seq):
    return glue(str(printed(x)) for x in seq)


# Blocks, recursive loops and ~ join strings by these.
jinja2.runtime.concat = glue
jinja2.runtime.str_join = joined


# --- the environment that templates are written for --------------------------

def tojson(x, ensure_ascii=False, indent=None, separators=None,
           sort_keys=False):
    # not Jinja's: that one is for HTML, and sorts
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent,
                      separators=separators, sort_keys=sort_keys)


def from_json(text):
    def mark(x):
        if isinstance(x, str):
            return Marked(x)
        if isinstance(x, list):
            return [mark(v) for v in x]
        if isinstance(x, dict):
            return {mark(k): mark(v) for k, v in x.items()}
        return x

    x = json.loads(text)
    return mark(x) if isinstance(text, Marked) else x


@jinja2.pass_environment
def join_filter(env, value, d="", attribute=None):
    if attribute is not None:
        value = map(jinja2.filters.make_attrgetter(env, attribute), value)
    return weave(str(d), (str(printed(x)) for x in value))


def replace_filter(s, old, new, count=None):
    s, old, new = (str(printed(x)) for x in (s, old, new))
    if isinstance(new, Marked):
        s = Marked(s, mask_of(s))
    return s.replace(old, new, -1 if count is None else count)


def string_filter(x):
    return str(printed(x))


def raise_exception(message):
    raise Refused(str(message))


# These return what they were given, or a part of it, with its marks.
PICK = {"attr", "d", "default", "first", "last", "max", "min", "random",
        "reverse", "sum", "trim", "truncate"}
OWN = {"from_json": from_json, "join": join_filter,
       "replace": replace_filter, "string": string_filter}


def watched(fn):
    @functools.wraps(fn)
    def run(*args, **kwargs):
        return settle(fn(*args, **kwargs),
                      lambda x: fn(*x[0], **x[1]), (args, kwargs),
                      exact=False)
    return run


class Generation(jinja2.ext.Extension):
    """{% generation %} marks what a model wrote, for training."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",),
                                       drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["%"])
    concat = staticmethod(glue)

    def __init__(self):
        super().__init__(trim_blocks=True, lstrip_blocks=True,
                         finalize=printed,
                         extensions=[Generation, jinja2.ext.loopcontrols])
        self.now = datetime.now()
        self.filters["tojson"] = tojson
        for name, fn in self.filters.items():
            if name not in PICK:
                self.filters[name] = watched(fn)
        self.filters.update(OWN)
        self.globals["raise_exception"] = raise_exception
        self.globals["strftime_now"] = self.strftime_now
        del self.globals["lipsum"]

    def strftime_now(self, form):
        return settle(self.now.strftime(form), self.now.strftime, form)

    def call_binop(self, context, operator, left, right):
        def run(x):
            return super(Environment, self).call_binop(context, operator, *x)
        return settle(run((left, right)), run, (left, right))

    def call(__self, __context, __obj, *args, **kwargs):
        def run(x):
            return super(Environment, __self).call(__context, x[0], *x[1],
                                                   **x[2])

        def again(x):
            fn = __obj
            if isinstance(owner, Marked):
                fn = getattr(quotes.put(owner), __obj.__name__)
            return run((fn, x[1], x[2]))

        out = run((__obj, args, kwargs))
        method = getattr(__obj, "__wrapped__", __obj)
        owner = getattr(method, "__self__", None)
        if not isinstance(owner, (str, bytes)) \
                or isinstance(method, types.MethodType):
            return out  # no string's, or Marked's own
        return settle(out, again, (owner, args, kwargs))

    def load(self, source):
        tree = self.parse(source)
        for node in tree.find_all(jinja2.nodes.EvalContextModifier):
            raise jinja2.TemplateSyntaxError("autoescape has no place in a "
                                             "chat template", node.lineno)
        return self.from_string(tree)


class Server:
    def __init__(self):
        self.env = Environment()
        self.kept = {}

    def template(self, source):
        t = self.kept.get(source)
        if t is None:
            t = self.env.load(source)
            if len(self.kept) == KEPT_TEMPLATES:
                del self.kept[next(iter(self.kept))]
            self.kept[source] = t
        return t

    def render(self, request, kind):
        messages = [{k: kind(v) if k == "content" else v
                     for k, v in m.items()} for m in request["messages"]]
        random.seed(0)
        return self.template(request["template"]).render(
            **request.get("tokens", {}), messages=messages, tools=None,
            documents=None,
            add_generation_prompt=request.get("add_generation_prompt", True))

    def answer(self, line):
        line = line.decode()
        request = json.loads(line)
        quotes.choose(request["template"] + "".join(
            m["content"] for m in request["messages"]))
        self.env.now = datetime.now()
        text = self.render(request, Marked)
        if bare(text) != self.render(request, bare):
            return failed("moe-template does not follow what the template "
                          "does with a content", "lost")
        out, user, at, size = [], [], 0, 0
        for a, b in ranges(mask_of(text)) + [(len(text), len(text))]:
            # half a surrogate pair, from an escape in a template, is "?"
            for s in (bare(text)[at:a], bare(text)[a:b]):
                out.append(s.encode("utf-8", "replace"))
                user.append(size)
                size += len(out[-1])
            at = b
        # user is now: other, user, other, user ... starts; drop the last two
        user = [x for i in range(1, len(user) - 2, 2)
                for x in (user[i], user[i + 1])]
        if size > MAX_TEXT:
            raise TooLong
        if len(user) > 2 * MAX_RANGES:
            return failed("the template cuts contents into more than "
                          f"{MAX_RANGES} parts", "long")
        return {"text": b"".join(out).decode(), "user": user}


def failed(text, kind):
    text = "".join(c if c.isprintable() else " " for c in bare(text)[:400])
    return {"error": text, "kind": kind}


def where(e):
    """ "line 3: " for what failed within a template."""
    line, tb = 0, e.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_filename == "<template>":
            line = tb.tb_lineno
        tb = tb.tb_next
    return f"line {line}: " if line else ""


def safely(server, line):
    try:
        return server.answer(line)
    except Refused as e:
        return failed(str(e), "refused")
    except TooLong:
        return failed(f"the prompt is longer than {MAX_TEXT >> 20} MiB",
                      "long")
    except jinja2.TemplateSyntaxError as e:
        return failed(f"line {e.lineno}: {e.message}", "template")
    except MemoryError:
        return failed("it takes more memory than the "
                      f"{MAX_MEMORY >> 20} MiB allowed", "memory")
    except Exception as e:
        return failed(f"{where(e)}{type(e).__name__}: {e}", "template")


def limit():
    for what, most in ((resource.RLIMIT_AS, MAX_MEMORY),
                       (resource.RLIMIT_CORE, 0)):
        _soft, hard = resource.getrlimit(what)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(what, (most, most))


def send(answer):
    data = (json.dumps(answer, ensure_ascii=False) + "\n").encode()
    while data:
        data = data[os.write(1, data):]


def main():
    limit()
    server = Server()
    send({"ready": 1})
    for line in sys.stdin.buffer:
        # Its default action ends the process: no template can catch it.
        signal.alarm(MAX_SECONDS)
        send(safely(server, line))
        signal.alarm(0)


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)
