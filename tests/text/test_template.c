/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_template.c - chat templates, good, strange and hostile.
 *
 * Expected prompts are written by hand from what Jinja is documented to do.
 * What users wrote is shown in ⟦⟧.  Helpers that misbehave are small scripts
 * made here.  The templates are in the style of well-known models' ones.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "tap.h"
#include "text/template.h"

static char        dir[64], file_config[128], file_jinja[128], script[128];
static const char *helper;
static struct moe_error err;

static void
write_file(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "we");

    if (f == NULL || fputs(text, f) == EOF || fclose(f) != 0
        || chmod(path, mode) != 0) {
        perror(path);
        exit(1);
    }
}

/* tokenizer_config.json with the usual tokens and this template. */
static void
write_template(const char *text)
{
    struct json_object *o = json_object_new_object();

    json_object_object_add(o, "bos_token", json_object_new_string("<s>"));
    json_object_object_add(o, "eos_token", json_object_new_object());
    json_object_object_add(json_object_object_get(o, "eos_token"), "content",
                           json_object_new_string("</s>"));
    json_object_object_add(o, "pad_token", NULL);
    if (text != NULL)
        json_object_object_add(o, "chat_template",
                               json_object_new_string(text));
    write_file(file_config, json_object_to_json_string(o), 0644);
    json_object_put(o);
}

/* What users wrote between brackets; valid until the next call. */
static const char *
shown(const struct moe_text_piece *p, size_t n)
{
    static char buf[8192];
    size_t      at = 0;

    buf[0] = '\0';
    for (size_t i = 0; i < n; i++)
        at += (size_t) snprintf(buf + at, sizeof(buf) - at,
                                p[i].user ? "⟦%.*s⟧" : "%.*s",
                                (int) p[i].len, p[i].text);
    return buf;
}

static const char *
status_name(moe_status st)
{
    static char buf[32];

    snprintf(buf, sizeof(buf), "status %d", (int) st);
    return buf;
}

/* Roles go user, assistant, user...; "system: " starts a system message. */
static const char *
render(struct moe_template *t, size_t n, const char *const *texts,
       moe_status *status)
{
    const struct moe_text_piece *p;
    const char                  *roles[8], *contents[8];
    size_t                       n_pieces, turn = 0;

    for (size_t i = 0; i < n; i++) {
        roles[i] = turn % 2 == 0 ? "user" : "assistant";
        contents[i] = texts[i];
        if (strncmp(texts[i], "system: ", 8) == 0) {
            roles[i] = "system";
            contents[i] += 8;
        } else {
            turn++;
        }
    }
    memset(&err, 0, sizeof(err));
    err.struct_size = sizeof(err);
    *status = moe_template_render(t, n, roles, contents, &p, &n_pieces, &err);
    if (*status != MOE_OK)
        return status_name(*status);
    return shown(p, n_pieces);
}

static struct moe_template *
open_text(const char *text)
{
    struct moe_template *t = NULL;

    write_template(text);
    if (moe_template_open(dir, helper, &t, &err) != MOE_OK) {
        ok(0, "the template opens");
        tap_diag("%s", err.text);
    }
    return t;
}

#define LIST(...)                                                             \
    sizeof((const char *const[]) { __VA_ARGS__ }) / sizeof(const char *),     \
        (const char *const[]) { __VA_ARGS__ }

/* One template, one list of messages, one prompt. */
static void
gives(const char *what, const char *text, const char *want, size_t n,
      const char *const *texts)
{
    struct moe_template *t = open_text(text);
    moe_status           st;

    if (t == NULL)
        return;
    is_str(render(t, n, texts, &st), want, "%s", what);
    if (st != MOE_OK)
        tap_diag("%s", err.text);
    moe_template_close(t);
}

/* One template that fails: status, and a part of the message. */
static void
fails(const char *what, const char *text, moe_status want, const char *part)
{
    struct moe_template *t = open_text(text);
    moe_status           st;

    if (t == NULL)
        return;
    (void) render(t, LIST("hello", "hi"), &st);
    is_int(st, want, "%s: status", what);
    has_str(err.text, part, "%s: message", what);
    moe_template_close(t);
}

/* --- families ------------------------------------------------------------ */

static const char mixtral[] =
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must take turns, beginning with user') }}"
    "{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant here') }}"
    "{% endif %}{% endfor %}";

static const char qwen3[] =
    "{%- if messages[0].role == 'system' %}\n"
    "    {{- '<|im_start|>system\\n' + messages[0].content + "
    "'<|im_end|>\\n' }}\n"
    "{%- endif %}\n"
    "{%- set ns = namespace(last=messages|length - 1, looking=true) %}\n"
    "{%- for m in messages[::-1] %}\n"
    "    {%- set i = messages|length - 1 - loop.index0 %}\n"
    "    {%- if ns.looking and m.role == 'user' and m.content is string and "
    "not (m.content.startswith('<tool>') and "
    "m.content.endswith('</tool>')) %}\n"
    "        {%- set ns.looking = false %}\n"
    "        {%- set ns.last = i %}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- for m in messages %}\n"
    "    {%- if m.role == 'user' %}\n"
    "        {{- '<|im_start|>' + m.role + '\\n' + m.content + "
    "'<|im_end|>' + '\\n' }}\n"
    "    {%- elif m.role == 'assistant' %}\n"
    "        {%- set thought = '' %}\n"
    "        {%- set said = m.content %}\n"
    "        {%- if '</think>' in m.content %}\n"
    "            {%- set said = m.content.split('</think>')[-1]"
    ".lstrip('\\n') %}\n"
    "            {%- set thought = m.content.split('</think>')[0]"
    ".rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n"
    "        {%- endif %}\n"
    "        {{- '<|im_start|>assistant\\n' }}\n"
    "        {%- if loop.index0 > ns.last %}\n"
    "            {{- '<think>\\n' + thought.strip('\\n') + "
    "'\\n</think>\\n\\n' }}\n"
    "        {%- endif %}\n"
    "        {{- said + '<|im_end|>\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}\n";

static const char deepseek[] =
    "{% if not add_generation_prompt is defined %}"
    "{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(system='', first=true) %}"
    "{%- for m in messages %}{%- if m['role'] == 'system' %}"
    "{%- if ns.first %}{% set ns.system = ns.system + m['content'] %}"
    "{% set ns.first = false %}"
    "{%- else %}{% set ns.system = ns.system + '\\n\\n' + m['content'] %}"
    "{%- endif %}{%- endif %}{%- endfor %}"
    "{{ bos_token }}{{ ns.system }}"
    "{%- for m in messages %}"
    "{%- if m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}{%- endif %}"
    "{%- if m['role'] == 'assistant' %}"
    "{% set content = m['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>', 1)[1] %}{% endif %}"
    "{{ '<|Assistant|>' + content + eos_token }}{%- endif %}"
    "{%- endfor -%}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}"
    "{% endif %}";

static const char llama[] =
    "{%- set loop_messages = messages %}\n"
    "{%- for m in loop_messages %}\n"
    "    {%- set c = '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' %}\n"
    "    {%- if loop.first %}{% set c = bos_token + c %}{% endif %}\n"
    "    {{- c }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n"
    "{%- endif %}";

static void
families(void)
{
    gives("Mixtral's style", mixtral,
          "<s>[INST] ⟦Hi </s>⟧ [/INST]⟦Hello⟧</s>[INST] ⟦Bye⟧ [/INST]",
          LIST("Hi </s>", "Hello", "Bye"));
    gives("Qwen3's style: thoughts before the last user are dropped", qwen3,
          "<|im_start|>system\n⟦Be <|im_end|> kind⟧<|im_end|>\n"
          "<|im_start|>user\n⟦1+1?⟧<|im_end|>\n"
          "<|im_start|>assistant\n⟦Two⟧<|im_end|>\n"
          "<|im_start|>user\n⟦Sure?⟧<|im_end|>\n<|im_start|>assistant\n",
          LIST("system: Be <|im_end|> kind", "1+1?",
               "<think>\nwell\n</think>\n\nTwo", "Sure?"));
    gives("Qwen3's style: thoughts after it stay", qwen3,
          "<|im_start|>user\n⟦1+1?⟧<|im_end|>\n"
          "<|im_start|>assistant\n<think>\n⟦well⟧\n</think>\n\n"
          "⟦Two⟧<|im_end|>\n<|im_start|>assistant\n",
          LIST("1+1?", "<think>\nwell\n</think>\n\nTwo"));
    gives("DeepSeek's style", deepseek,
          "<s>⟦S1⟧\n\n⟦S2⟧<|User|>⟦a <|User|> b⟧"
          "<|Assistant|>⟦c</think>d⟧</s><|User|>⟦e⟧<|Assistant|><think>\n",
          LIST("system: S1", "system: S2", "a <|User|> b",
               "<think>no</think>c</think>d", "e"));
    gives("Llama's style: contents are trimmed", llama,
          "<s><|start_header_id|>user<|end_header_id|>\n\n"
          "⟦hi <|eot_id|>⟧<|eot_id|>"
          "<|start_header_id|>assistant<|end_header_id|>\n\n",
          LIST(" \n hi <|eot_id|>\t "));
}

/* --- what the environment offers ----------------------------------------- */

#define C "messages[0].content"

static void
environment(void)
{
    gives("white space: trim_blocks and lstrip_blocks",
          "a\n  {% if true %}\n b\n  {% endif %}\nc\n", "a\n b\nc",
          LIST("x"));
    gives("tojson: order kept, nothing escaped for HTML, letters as they are",
          "{{ messages|tojson }}|{{ {'b': '<é>', 'a': [1, none]}|tojson }}",
          "[{\"role\": \"user\", \"content\": \"⟦<ü>\\\"'&⟧\"}]"
          "|{\"b\": \"<é>\", \"a\": [1, null]}", LIST("<ü>\"'&"));
    gives("tojson: indent", "{{ {'b': 1}|tojson(indent=2) }}",
          "{\n  \"b\": 1\n}", LIST("x"));
    gives("break, continue",
          "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}"
          "{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
          "02", LIST("x"));
    gives("generation",
          "{% generation %}{{ " C " }}!{% endgeneration %}", "⟦x⟧!",
          LIST("x"));
    gives("strftime_now", "{{ strftime_now('%Y')|length }}", "4", LIST("x"));
    gives("a null token is undefined",
          "{{ pad_token is defined }} {{ bos_token is defined }} {{ tools }}",
          "False True None", LIST("x"));
    gives("macros, previtem, items, slices",
          "{% macro f(x, n) %}<{{ x[:n] }}>{% endmacro %}"
          "{% for m in messages %}{{ f(m.content, 2) }}"
          "{{ loop.previtem.role if loop.previtem else '-' }}{% endfor %}"
          "{% for k, v in {'a': 1}.items() %}{{ k ~ v }}{% endfor %}",
          "<⟦ab⟧>-<⟦de⟧>usera1", LIST("abc", "def"));
}

/* --- who wrote what ------------------------------------------------------ */

static void
marks(void)
{
    char  *big = malloc((1 << 20) + 1);
    char   want[64];

    gives("+ and ~ from both sides",
          "{{ '<a>' + " C " + '<b>' }}{{ '<c>' ~ " C " ~ 1 }}",
          "<a>⟦x⟧<b><c>⟦x⟧1", LIST("x"));
    gives("strip, then a prefix", "{{ ('<p> ' + " C ").strip() }}",
          "<p> ⟦u⟧", LIST("u \n"));
    gives("a text that is all the template's stays so",
          "{{ ('<p>' + " C ").replace(" C ", '') }}"
          "{{ ('<p>' ~ " C ")|trim }}",
          "<p><p>", LIST("  "));
    gives("split, partition, splitlines, join",
          "{{ " C ".split(',')|join('<j>') }} {{ " C ".partition(',')[2] }} "
          "{{ '<k>'.join(" C ".splitlines()) }} "
          "{{ " C ".rsplit(none, 1)[-1] }}",
          "⟦a⟧<j>⟦b\nc⟧ ⟦b\nc⟧ ⟦a,b⟧<k>⟦c⟧ ⟦c⟧", LIST("a,b\nc"));
    gives("replace, by filter and method",
          "{{ " C "|replace('-', '<r>') }}{{ " C ".replace('-', '') }}"
          "{{ '<%>'|replace('%', " C ") }}",
          "⟦a⟧<r>⟦bab⟧<⟦a-b⟧>", LIST("a-b"));
    gives("formats",
          "{{ '<%s>' % " C " }}{{ '<%s,%d>' % (" C ", 1) }}"
          "{{ '<{}>'.format(" C ") }}{{ '<%s>'|format(" C ") }}",
          "<⟦x⟧><⟦x⟧,1><⟦x⟧><⟦x⟧>", LIST("x"));
    gives("indent: all lines keep their marks",
          "<a>{{ " C "|indent(2) }}<b>{{ ('<c>' ~ " C ")|indent(2) }}",
          "<a>⟦x\n  y⟧<b><c>⟦x\n  y⟧", LIST("x\ny"));
    gives("what cannot be followed is all the users'",
          "{{ '<|a|>%9s' % " C " }}", "⟦<|a|>        x⟧", LIST("x"));
    gives("other letters", "{{ " C "|upper }}{{ " C ".title() }}<q>",
          "⟦<|IM|><|Im|>⟧<q>", LIST("<|im|>"));
    gives("blocks and sets",
          "{% set b %} <b>{{ " C " }} {% endset %}{{ b|trim }}"
          "{% filter upper %}<f>{{ " C " }}{% endfilter %}"
          "{% block z %}<z>{{ " C " }}{% endblock %}{{ self.z() }}",
          "<b>⟦x⟧<F>⟦X⟧<z>⟦x⟧<z>⟦x⟧", LIST("x"));
    gives("letters, one by one, and a list as it is",
          "{% for c in " C " %}{{ c }}.{% endfor %}{{ [" C ", 1] }}",
          "⟦a⟧.⟦b⟧.⟦['ab', 1]⟧", LIST("ab"));
    gives("no quotes to forge: private-use characters are text",
          "{{ '<%s>' % " C " }}{{ " C "|trim }}",
          "<⟦\xf3\xb0\x80\x80x\xf3\xb0\x80\x81\xee\x80\x80⟧>"
          "⟦\xf3\xb0\x80\x80x\xf3\xb0\x80\x81\xee\x80\x80⟧",
          LIST("\xf3\xb0\x80\x80x\xf3\xb0\x80\x81\xee\x80\x80"));
    gives("quotes in the template itself",
          "{{ '<\\U000f0000\\U000f0001%s>' % " C " }}",
          "⟦<\xf3\xb0\x80\x80\xf3\xb0\x80\x81x>⟧", LIST("x"));
    gives("JSON's escapes come and go", "{{ " C " }}",
          "⟦\"\\/\b\n\x01é😀\xf4\x8f\xbf\xbf⟧",
          LIST("\"\\/\b\n\x01é😀\xf4\x8f\xbf\xbf"));
    gives("an empty content is no piece", "<a>{{ " C " }}<b>", "<a><b>",
          LIST(""));
    gives("from_json",
          "{{ ('{\"k\": \"' ~ " C " ~ '\"}')|from_json|tojson }}",
          "{\"⟦k⟧\": \"⟦v⟧\"}", LIST("v"));

    /* more than a socket's buffers hold, both ways */
    memset(big, 'x', 1 << 20);
    big[1 << 20] = '\0';
    snprintf(want, sizeof(want), "%d ⟦x⟧", 1 << 20);
    gives("a content of 1 MiB", "{{ " C "|length }} {{ " C "[-1] }}", want,
          LIST(big));
    {
        struct moe_template         *t = open_text("<{{ " C " }}>");
        const struct moe_text_piece *p = NULL;
        const char                  *role = "user", *text = big;
        size_t                       n = 0;

        if (t != NULL) {
            is_int(moe_template_render(t, 1, &role, &text, &p, &n, &err),
                   MOE_OK, "and 1 MiB back");
            ok(n == 3 && p[1].len == 1 << 20 && p[1].user
                   && memcmp(p[1].text, big, 1 << 20) == 0,
               "unchanged, as one piece");
        }
        moe_template_close(t);
    }
    free(big);
}

/* --- the folder ---------------------------------------------------------- */

static void
opens(const char *what, moe_status want, const char *part)
{
    struct moe_template *t = NULL;

    memset(&err, 0, sizeof(err));
    err.struct_size = sizeof(err);
    is_int(moe_template_open(dir, helper, &t, &err), want, "%s: status",
           what);
    has_str(err.text, part, "%s: message", what);
    ok(t == NULL, "%s: nothing is open", what);
    moe_template_close(t);
}

static void
folder(void)
{
    struct moe_template *t = NULL;
    moe_status           st;

    unlink(file_config);
    opens("an empty folder", MOE_E_NOT_FOUND, "no chat template");
    write_template(NULL);
    opens("a configuration without one", MOE_E_NOT_FOUND,
          "chat_template.jinja");
    write_file(file_config, "{\"chat_template\": [{\"name\": \"tool_use\", "
               "\"template\": \"T\"}]}", 0644);
    opens("a list without a default", MOE_E_NOT_FOUND, "\"default\"");
    write_file(file_config, "{\"chat_template\": 7}", 0644);
    opens("a number", MOE_E_CORRUPT, "not a text");
    write_file(file_config, "{\"chat_template\": \"x\", \"bos_token\": []}",
               0644);
    opens("a token of another type", MOE_E_CORRUPT, "\"bos_token\"");
    write_file(file_config, "{\"chat_template\": ", 0644);
    opens("JSON that is cut", MOE_E_CORRUPT, "not JSON");

    write_file(file_config, "{\"chat_template\": [1, {\"name\": \"rag\", "
               "\"template\": \"R\"}, {\"name\": \"default\", \"template\": "
               "\"D{{ bos_token }}\"}], \"bos_token\": \"<b>\"}", 0644);
    is_int(moe_template_open(dir, helper, &t, &err), MOE_OK,
           "a list of named templates");
    if (t != NULL)
        is_str(render(t, LIST("x"), &st), "D<b>", "its default is taken");
    moe_template_close(t);

    write_file(file_jinja, "J{{ bos_token }}\n", 0644);
    is_int(moe_template_open(dir, helper, &t, &err), MOE_OK,
           "chat_template.jinja beside it");
    if (t != NULL)
        is_str(render(t, LIST("x"), &st), "J<b>",
               "counts more, with the configuration's tokens");
    moe_template_close(t);
    unlink(file_config);
    is_int(moe_template_open(dir, helper, &t, &err), MOE_OK,
           "chat_template.jinja alone");
    if (t != NULL)
        is_str(render(t, LIST("x"), &st), "J", "has no tokens");
    moe_template_close(t);
    write_file(file_jinja, "\xff", 0644);
    opens("chat_template.jinja that is not UTF-8", MOE_E_CORRUPT, "UTF-8");
    unlink(file_jinja);
    mkfifo(file_jinja, 0644);
    opens("chat_template.jinja that is a FIFO", MOE_E_CORRUPT, "regular");
    unlink(file_jinja);
}

/* --- hostile templates and messages -------------------------------------- */

static void
hostile(void)
{
    struct moe_template *t;
    const char          *role, *text;
    const struct moe_text_piece *p;
    struct timespec      from, to;
    moe_status           st;
    size_t               n;

    fails("raise_exception", "{{ raise_exception('Say \\n please') }}",
          MOE_E_INVAL, "refuses the messages: Say   please");
    fails("attributes of classes", "{{ ''.__class__.__mro__ }}", MOE_E_INVAL,
          "unsafe");
    fails("attributes of contents",
          "{{ " C ".__init__.__globals__['os'] }}", MOE_E_INVAL, "unsafe");
    fails("the marks are out of reach", "{{ " C "._mask.x }}", MOE_E_INVAL,
          "unsafe");
    fails("format strings", "{{ '{0.__class__.__name__}'.format(1) }}",
          MOE_E_INVAL, "unsafe");
    fails("functions' globals", "{{ raise_exception.__globals__.x }}",
          MOE_E_INVAL, "unsafe");
    fails("changing the messages", "{{ messages.append(1) }}", MOE_E_INVAL,
          "SecurityError");
    fails("bytes", "{{ " C ".encode().decode() }}", MOE_E_INVAL, "bytes");
    fails("including files", "{% include '/etc/passwd' %}", MOE_E_INVAL,
          "loader");
    fails("autoescape",
          "{% autoescape true %}{{ " C " }}{% endautoescape %}",
          MOE_E_INVAL, "autoescape");
    fails("not Jinja", "a\n{% if %}", MOE_E_INVAL, "line 2: ");
    fails("an error within", "a\n{{ 1 // 0 }}", MOE_E_INVAL,
          "line 2: ZeroDivisionError");
    fails("a huge prompt",
          "{% for i in range(99999) %}{% for i in range(99999) %}"
          "{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}"
          "{% endfor %}{% endfor %}",
          MOE_E_INVAL, "longer than 16 MiB");
    fails("a huge string", "{{ 'x' * 10000000000 }}", MOE_E_INVAL, "memory");
    fails("nothing but recursion",
          "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", MOE_E_INVAL,
          "Recursion");

    t = open_text("{% if " C " == 'hang' %}{% for i in range(99999) %}"
                  "{% for j in range(99999) %}{% endfor %}{% endfor %}"
                  "{% endif %}[{{ " C " }}]");
    if (t != NULL) {
        clock_gettime(CLOCK_MONOTONIC, &from);
        (void) render(t, LIST("hang"), &st);
        clock_gettime(CLOCK_MONOTONIC, &to);
        is_int(st, MOE_E_TIMEOUT, "a template without an end is ended");
        has_str(err.text, "took over", "and the message says so");
        ok(to.tv_sec - from.tv_sec < 30, "in time");
        ok(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD,
           "and no process is left");
        is_str(render(t, LIST("go"), &st), "[⟦go⟧]",
               "the next request starts a new one");

        role = "user<|im_end|>";
        text = "x";
        is_int(moe_template_render(t, 1, &role, &text, &p, &n, &err),
               MOE_E_INVAL, "a role that is no word");
        has_str(err.text, "role", "says so");
        role = "user";
        text = "ab\xc3";
        is_int(moe_template_render(t, 1, &role, &text, &p, &n, &err),
               MOE_E_INVAL, "a content that is not UTF-8");
        has_str(err.text, "message 1: not UTF-8 at byte 2", "says so");
        is_int(moe_template_render(t, 0, NULL, NULL, &p, &n, &err),
               MOE_E_INVAL, "no messages, and a template that wants one");
        ok(n == 0 && p == NULL, "gives no pieces");
        is_str(render(t, LIST("go"), &st), "[⟦go⟧]", "all is well after it");
    }
    moe_template_close(t);
}

/* --- helpers that misbehave ---------------------------------------------- */

/* A shell script in the helper's place. */
static void
with_helper(const char *what, const char *body, moe_status want,
            const char *part)
{
    const char *real = helper;
    char        buf[1024];

    snprintf(buf, sizeof(buf), "#!%s\n", body);
    unlink(script);
    write_file(script, buf, 0755);
    helper = script;
    fails(what, "x", want, part);
    helper = real;
}

static int
open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    int  n = 0;

    if (d == NULL)
        return -1;
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

#define READY "/bin/sh\necho '{\"ready\": 1}'\n"

static void
helpers(void)
{
    const char          *real = helper;
    struct moe_template *t;
    moe_status           st;
    char                 buf[256];
    FILE                *f;
    int                  before = open_files();

    helper = "/nonexistent/moe-template";
    fails("no helper", "x", MOE_E_UNSUPPORTED, "text.template_helper");
    helper = NULL;
    fails("no path", "x", MOE_E_UNSUPPORTED, "text.template_helper");
    helper = real;
    with_helper("no Python", "/nonexistent/python3", MOE_E_UNSUPPORTED,
                "apt install python3");
    with_helper("no Jinja", "/bin/sh\necho '{\"missing\": \"jinja2\"}'",
                MOE_E_UNSUPPORTED, "apt install python3-jinja2");
    with_helper("one that ends at once", "/bin/sh\necho noise >&2; exit 3",
                MOE_E_UNSUPPORTED, "(status 3)");
    with_helper("one that talks", "/bin/sh\necho Hello!; exec sleep 60",
                MOE_E_UNSUPPORTED, "no JSON object");
    with_helper("one that says too much", READY "echo more; exec sleep 60",
                MOE_E_UNSUPPORTED, "not moe-template's");
    with_helper("one that does not stop", "/bin/sh\nexec cat /dev/zero",
                MOE_E_UNSUPPORTED, "without an end");
    with_helper("one that dies over it", READY "read x; kill -9 $$",
                MOE_E_UNSUPPORTED, "(signal 9)");
    with_helper("ranges past the end", READY "read x\n"
                "echo '{\"text\": \"ab\", \"user\": [1, 3]}'; exec sleep 60",
                MOE_E_UNSUPPORTED, "ranges");
    with_helper("ranges within a character", READY "read x\n"
                "echo '{\"text\": \"\\u00e9\", \"user\": [0, 1]}'; "
                "exec sleep 60", MOE_E_UNSUPPORTED, "ranges");
    with_helper("ranges that go back", READY "read x\n"
                "echo '{\"text\": \"abc\", \"user\": [2, 1]}'; "
                "exec sleep 60", MOE_E_UNSUPPORTED, "ranges");
    with_helper("no text", READY "read x; echo '{}'; exec sleep 60",
                MOE_E_UNSUPPORTED, "\"text\"");
    with_helper("one that never starts", "/bin/sh\nexec sleep 60",
                MOE_E_TIMEOUT, "the start of moe-template");

    /* it dies between two requests: the next one does not notice */
    unlink(script);
    snprintf(buf, sizeof(buf), "#!/bin/sh\necho $$ > %s/pid\nexec %s\n", dir,
             real);
    write_file(script, buf, 0755);
    helper = script;
    t = open_text("[{{ " C " }}]");
    helper = real;
    if (t != NULL) {
        int pid = 0;

        is_str(render(t, LIST("a"), &st), "[⟦a⟧]", "a helper at work");
        snprintf(buf, sizeof(buf), "%s/pid", dir);
        f = fopen(buf, "re");
        ok(f != NULL && fscanf(f, "%d", &pid) == 1 && pid > 1
               && kill(pid, SIGKILL) == 0, "is killed");
        if (f != NULL)
            fclose(f);
        is_str(render(t, LIST("b"), &st), "[⟦b⟧]",
               "the next request has another one, without SIGPIPE");
        unlink(buf);
    }
    moe_template_close(t);
    ok(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD,
       "no process is left");
    is_int(open_files(), before, "no file is left open");
}

int
main(void)
{
    if (system("/usr/bin/python3 -c 'import jinja2' 2>/dev/null") != 0)
        tap_skip_all("no Jinja for /usr/bin/python3 (python3-jinja2)");
    helper = tap_src("core/text/moe-template.py");
    {
        /* tap_src has few buffers, and a relative path depends on $srcdir */
        static char path[4096];

        if (realpath(helper, path) == NULL)
            tap_skip_all("core/text/moe-template.py is not here");
        helper = path;
    }
    strcpy(dir, "/tmp/moe-test-template-XXXXXX");
    if (mkdtemp(dir) == NULL) {
        perror(dir);
        return 1;
    }
    snprintf(file_config, sizeof(file_config), "%s/tokenizer_config.json",
             dir);
    snprintf(file_jinja, sizeof(file_jinja), "%s/chat_template.jinja", dir);
    snprintf(script, sizeof(script), "%s/helper", dir);
    families();
    environment();
    marks();
    folder();
    hostile();
    helpers();
    unlink(file_config);
    unlink(file_jinja);
    unlink(script);
    ok(rmdir(dir) == 0, "nothing else was written");
    return tap_done();
}
