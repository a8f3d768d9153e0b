/* test_tasks.c - tasks are read or refused with their place, tokens are split where they should be, figures
 * do not depend on how requests share runs, and verdicts are those worked out by hand. */
#include "calib/eval/candidate.h"
#include "calib/model/forward.h"
#include "calib/tasks/verdict.h"
#include "libquant/base/slice.h"
#include "scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TASKS KERF_TEST_DATA "/tasks"

static struct candidate demo;
static struct pool *pool;
static const struct vocabulary *vocabulary;

static int open_demo(void **state)
{
    struct err e = {0};
    if (scratch_begin(state) != 0)
        return -1;
    int rc = pool_new(&pool, 2, &e);
    if (rc == 0)
        rc = candidate_open_file(&demo, KERF_TEST_DATA "/demo-qwen3", NULL, &e);
    return rc == 0 ? model_vocabulary(demo.model, &vocabulary, &e) : rc;
}

static int close_demo(void **state)
{
    candidate_close(&demo);
    pool_free(pool);
    return scratch_end(state);
}

/* A file of these bytes, read; the caller releases the task. */
static int read_bytes(struct task *t, const void *bytes, size_t n, struct err *e)
{
    const char *path = in_scratch("task");
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return task_read(t, path, TASK_FORM_AUTO, 0, e);
}

static void refused(const char *text, const char *why)
{
    struct task t = {0};
    struct err e = {0};
    int rc = read_bytes(&t, text, strlen(text), &e);
    if (rc == 0 || !strstr(e.msg, why))
        fail_msg("expected '%s', got %d '%s'", why, rc, e.msg);
}

static void styles_become_the_prompts_of_the_harness(void **state)
{
    (void)state;
    struct task t = {0};
    assert_int_equal(task_read(&t, TASKS "/small.jsonl", TASK_FORM_AUTO, 0, NULL), 0);
    assert_int_equal(t.n_records, 17);
    assert_int_equal(t.n_of[TASK_CHOICE], 12);
    assert_int_equal(t.n_of[TASK_ANSWER], 3);
    const struct task_record *hella = &t.records[2], *wino = &t.records[5], *arc = &t.records[7],
                             *mmlu = &t.records[9], *answer = &t.records[13];
    assert_string_equal(hella->choices[0].context,
                        "Sharpening a plane: A man lays a plane iron on a stone. He");
    assert_string_equal(hella->choices[1].text, " paints the stone with a brush.. Then he sings.");
    assert_string_equal(hella->choices[2].text, " throws the iron away and goes home.");
    assert_string_equal(wino->choices[1].context, "Anna thanked Maria for the letter because Maria");
    assert_string_equal(wino->choices[1].text, " had written it with care.");
    assert_int_equal(wino->right, 1);
    assert_int_equal(t.records[6].right, 1); /* by the text of an option */
    assert_string_equal(arc->choices[2].context,
                        "Question: Which of these is a liquid at room temperature?\nAnswer:");
    assert_int_equal(arc->right, 1);
    assert_string_equal(
        mmlu->choices[3].context,
        "The following are multiple choice questions (with answers) about elementary geometry.\n\n"
        "How many sides has a triangle?\nA. two\nB. three\nC. four\nD. five\nAnswer:");
    assert_string_equal(mmlu->choices[3].text, " D");
    assert_int_equal(t.records[10].right, 2); /* by a letter */
    assert_string_equal(answer->choices[0].text, " Paris\n");
    assert_string_equal(answer->choices[0].counted, "Paris");
    assert_string_equal(t.records[14].choices[0].text, "lazy dog"); /* the context ends in a line */
    assert_int_equal(task_usual_metric(&t), TASK_ACC);
    task_release(&t);
}

static void one_task_in_three_forms_is_the_same(void **state)
{
    (void)state;
    struct task a = {0}, b = {0}, c = {0}, w = {0};
    assert_int_equal(task_read(&a, TASKS "/continue.jsonl", TASK_FORM_AUTO, 0, NULL), 0);
    assert_int_equal(task_read(&b, TASKS "/continue.hellaswag.txt", TASK_FORM_AUTO, 0, NULL), 0);
    assert_int_equal(task_read(&c, TASKS "/continue.bin", TASK_FORM_AUTO, 0, NULL), 0);
    assert_int_equal(a.n_records, 39);
    assert_int_equal(b.n_records, 39);
    assert_int_equal(c.n_records, 39);
    for (size_t i = 0; i < 39; i++) {
        assert_int_equal(a.records[i].right, b.records[i].right);
        assert_int_equal(a.records[i].right, c.records[i].right);
        for (size_t k = 0; k < 4; k++) {
            assert_string_equal(a.records[i].choices[k].context, b.records[i].choices[k].context);
            assert_string_equal(a.records[i].choices[k].text, b.records[i].choices[k].text);
            assert_string_equal(a.records[i].choices[k].text, c.records[i].choices[k].text);
        }
    }
    assert_int_equal(task_usual_metric(&b), TASK_ACC_NORM);
    assert_int_equal(task_read(&w, TASKS "/winogrande.csv", TASK_FORM_AUTO, 4, NULL), 0);
    assert_int_equal(w.n_records, 4); /* the limit */
    assert_int_equal(w.records[3].style, TASK_WINOGRANDE);
    assert_string_equal(w.records[3].choices[1].context, "The box did not fit on the shelf for the shelf");
    assert_string_equal(w.records[3].choices[1].text, " was too large by a hand.");
    task_release(&a);
    task_release(&b);
    task_release(&c);
    task_release(&w);
}

static void wrong_records_are_refused_with_their_line(void **state)
{
    (void)state;
    refused("", "not a task file");
    refused("just a text\n", "--form names one");
    refused("{\"text\": \"a\"}\n\n{\"text\": 3", "line 3");
    refused("{\"text\": \"a\"}\n{\"words\": 3}\n", "line 2: a record of no known style");
    refused("{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 2}\n",
            "names none of the 2 choices");
    refused("{\"context\": \"a\", \"choices\": [\"b\", 4], \"answer\": 0}\n", "choice 1 is not a string");
    refused("{\"context\": \"a\", \"choices\": [], \"answer\": 0}\n", "0 choices");
    refused("{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": \"d\"}\n", "'answer' names none");
    refused("{\"context\": \"a\", \"answer\": 7}\n", "expected a string, or a list");
    refused("{\"text\": null}\n", "expected the field 'text', a string");
    refused("{\"text\": 5}\n", "expected the field 'text', a string");
    refused("{\"text\": [\"a\"]}\n", "expected the field 'text', a string");
    refused("{\"context\": \"a\", \"choices\": [\"b\"], \"answer\": -9223372036854775808}\n",
            "'answer' names none");
    refused("{\"context\": \"a\", \"choices\": [\"1\", \"2\", \"3\"], \"answer\": \"2\"}\n",
            "the text of choice 1 and the name of choice 2");
    refused("0,The _ fell.,cup,cat,1\nno comma at all\n", "line 2");
    refused("{\"answer\": \"a\"}\n", "expected one of the strings 'context' and 'prompt'");
    refused("{\"messages\": [{\"role\": \"user\"}], \"answer\": \"a\"}\n", "message 0");
    refused("{\"sentence\": \"a b\", \"option1\": \"c\", \"option2\": \"d\", \"answer\": \"1\"}\n",
            "has no _");
    refused("{\"sentence\": \"a _\", \"option1\": \"c\", \"option2\": \"d\", \"answer\": \"1\"}\n",
            "nothing follows");
    refused(
        "{\"question\": \"q\", \"choices\": {\"text\": [\"a\"], \"label\": [\"A\"]}, \"answerKey\": \"B\"}",
        "none of the labels");
    refused("{\"ctx\": \"a\", \"endings\": [\"b\", \"c\"], \"label\": \"\"}", "'label' names none");
    refused("context\n0\na\nb\nc\n", "ends after 5 lines");
    refused("context\n4\na\nb\nc\nd\n", "line 2: expected the number of the right ending");
    refused("1,\"a _ b, c\",x,y,3\n", "line 1: expected 1 or 2");
    refused("1,a _,x,y,1\n", "nothing follows the _");
}

/* Every cut of a binary task, and counts that lie, end in an error and not in memory that is not there. */
static void damaged_binary_tasks_are_refused(void **state)
{
    (void)state;
    FILE *f = fopen(TASKS "/continue.bin", "rb");
    char bytes[65536];
    struct task t = {0};
    struct err e = {0};
    assert_non_null(f);
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    assert_true(n > 1000 && n < sizeof bytes - 1);
    for (size_t cut = 8; cut < n; cut += 61)
        assert_int_not_equal(read_bytes(&t, bytes, cut, &e), 0);
    bytes[n] = 0;
    assert_int_equal(read_bytes(&t, bytes, n + 1, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "1 bytes follow the last"));
    for (size_t at = 0; at < 400; at += 4) {
        uint32_t before = load_u32(bytes + at), huge = 0x00ffffff;
        memcpy(bytes + at, &huge, 4);
        if (read_bytes(&t, bytes, n, &e) == 0) /* an offset, which nothing follows, or letters */
            task_release(&t);
        memcpy(bytes + at, &before, 4);
    }
}

static void make(struct requests *r, const struct task *t, size_t ctx)
{
    struct request_options opt = {.ctx = ctx};
    struct err e = {0};
    if (requests_make(r, t, vocabulary, &opt, &e) != 0)
        fail_msg("%s", e.msg);
}

static void long_contexts_lose_their_beginning(void **state)
{
    (void)state;
    struct task t = {0};
    struct requests whole, cut;
    struct err e = {0};
    assert_int_equal(task_read(&t, TASKS "/continue.jsonl", TASK_FORM_AUTO, 0, NULL), 0);
    make(&whole, &t, 512);
    make(&cut, &t, 40);
    assert_int_equal(whole.n_cut, 0);
    assert_true(cut.n_cut > 0 && cut.n == whole.n);
    for (size_t i = 0; i < cut.n; i++) {
        const struct request *a = &whole.items[i], *b = &cut.items[i];
        size_t lost = a->len - b->len;
        assert_true(b->len <= 41);
        assert_int_equal(a->own_first, b->own_first + lost);
        assert_memory_equal(whole.ids + a->begin + lost, cut.ids + b->begin, b->len * sizeof(int32_t));
    }
    requests_release(&whole);
    requests_release(&cut);
    struct request_options tiny = {.ctx = 2};
    assert_int_equal(requests_make(&cut, &t, vocabulary, &tiny, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "more than the context of 2"));
    task_release(&t);
}

/* Every token of a text is scored once, whatever the window. */
static void windows_of_a_text_score_each_token_once(void **state)
{
    (void)state;
    static const char text[] = "{\"text\": \"one two three four five six seven eight nine ten eleven\"}";
    struct task t = {0};
    struct requests whole;
    assert_int_equal(read_bytes(&t, text, strlen(text), NULL), 0);
    make(&whole, &t, 512);
    assert_int_equal(whole.n, 1);
    size_t n = whole.items[0].len - 1;
    for (size_t ctx = 2; ctx < n + 2; ctx++) {
        struct requests r;
        size_t at = 1;
        make(&r, &t, ctx);
        for (size_t i = 0; i < r.n; i++) {
            const struct request *q = &r.items[i];
            assert_true(q->len - 1 <= ctx);
            assert_memory_equal(r.ids + q->begin + q->first, whole.ids + at,
                                (q->len - q->first) * sizeof(int32_t));
            at += q->len - q->first;
        }
        assert_int_equal(at, n + 1);
        requests_release(&r);
    }
    requests_release(&whole);
    task_release(&t);
}

/* The log-likelihood of one request from a pass of its own. */
static double alone(const struct requests *r, const struct request *q)
{
    struct hidden_states *states = NULL;
    struct forward_options f = {.pool = pool, .memory_bytes = 1 << 26, .keep_end = q->len - 1};
    struct head_options h = {.pool = pool, .memory_bytes = 1 << 26};
    struct head_score *scores = calloc(q->len, sizeof *scores);
    double sum = 0;
    assert_int_equal(
        forward_run(&states, &demo.net, demo.weights, r->ids + q->begin, 1, q->len - 1, &f, NULL), 0);
    struct head_model m = {&demo.net, demo.weights, states};
    assert_int_equal(head_score(&m, 1, r->ids + q->begin + 1, q->len - 1, &h, scores, NULL), 0);
    for (size_t t = q->own_first; t < q->len; t++)
        sum -= scores[t - 1].nll;
    hidden_states_free(states);
    free(scores);
    return sum;
}

static void figures_do_not_depend_on_shared_runs(void **state)
{
    (void)state;
    struct task t = {0};
    struct requests r;
    size_t padded = 0, plain = 0, all = 0;
    struct score_options opt = {.pool = pool, .memory_bytes = 1 << 22};
    assert_int_equal(task_read(&t, TASKS "/small.jsonl", TASK_FORM_AUTO, 0, NULL), 0);
    make(&r, &t, 512);
    struct likelihood *l = calloc(r.n, sizeof *l);
    assert_int_equal(score_requests(l, &r, &demo.net, demo.weights, &opt, NULL), 0);
    for (size_t i = 0; i < r.n; i++) {
        all += r.items[i].len - 1;
        double expected = alone(&r, &r.items[i]);
        assert_true(l[i].sum == expected);
        assert_int_equal(l[i].n_tokens, r.items[i].len - r.items[i].own_first);
    }
    assert_int_equal(score_count_tokens(&padded, &plain, &r, &demo.net, demo.weights, 1 << 22, NULL), 0);
    assert_true(plain < all); /* the letters of MMLU share their question */
    assert_true(padded >= plain);
    free(l);
    requests_release(&r);
    task_release(&t);
}

static void verdicts_are_those_worked_out_by_hand(void **state)
{
    (void)state;
    static const char text[] = "{\"context\": \"a\", \"choices\": [\"bb\", \"cccc\"], \"answer\": 0}\n"
                               "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 1}\n"
                               "{\"context\": \"a\", \"answer\": \"b\"}\n"
                               "{\"text\": \"abcd\"}\n{\"text\": \"ab\"}\n";
    struct likelihood first[] = {{-4, -1, 4, false}, {-6, -2, 3, false}, {-1, -1, 1, false},
                                 {-2, -2, 1, false}, {-1, -1, 1, true},  {-4, -2, 2, false},
                                 {-1, -1, 1, false}};
    struct likelihood second[] = {{-7, -2, 4, false}, {-6, -1, 3, false}, {-2, -1, 1, false},
                                  {-1, -2, 1, false}, {-1, -1, 1, true},  {-5, -2, 2, false},
                                  {-1, -1, 1, false}};
    size_t begin[] = {0, 2, 4, 5, 6, 7};
    struct requests r = {.record_begin = begin};
    struct task t = {0};
    struct verdict a, b;
    struct task_score s;
    assert_int_equal(read_bytes(&t, text, strlen(text), NULL), 0);
    assert_int_equal(verdict_of(&a, &t, &r, first, NULL), 0);
    assert_int_equal(verdict_of(&b, &t, &r, second, NULL), 0);
    /* -4 / 2 < -6 / 4: the longer choice wins when it is divided by its length. */
    assert_true(a.right[TASK_ACC][0] && !a.right[TASK_ACC_NORM][0] && a.right[TASK_ACC_TOKEN][0]);
    assert_int_equal(task_score_of(&s, &t, &b, &a, TASK_ACC, NULL), 0);
    assert_true(s.gained == 1 && s.lost == 1 && s.changed == 2 && s.p_value == 1);
    assert_true(fabs(s.accuracy[TASK_ACC].value - 2.0 / 3) < 1e-15);
    assert_true(fabs(s.difference.value) < 1e-15 && fabs(s.difference.error - sqrt(2.0 / 3 / 2)) < 1e-12);
    assert_true(s.n_tokens == 3 && s.n_bytes == 6);
    assert_true(fabs(s.nll.value - 2) < 1e-12 && fabs(s.bits_per_byte.value - 1 / log(2.0)) < 1e-12);
    assert_true(fabs(s.bits_difference.value - 1 / log(2.0) / 6) < 1e-12);
    assert_true(fabs(mcnemar(1, 9) - 22.0 / 1024) < 1e-12); /* 2 (1 + 10) / 2^10 */
    assert_true(fabs(mcnemar(0, 5) - 2.0 / 32) < 1e-12);
    assert_true(mcnemar(0, 0) == 1);
    verdict_release(&a);
    verdict_release(&b);
    task_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(styles_become_the_prompts_of_the_harness),
        cmocka_unit_test(one_task_in_three_forms_is_the_same),
        cmocka_unit_test(wrong_records_are_refused_with_their_line),
        cmocka_unit_test(damaged_binary_tasks_are_refused),
        cmocka_unit_test(long_contexts_lose_their_beginning),
        cmocka_unit_test(windows_of_a_text_score_each_token_once),
        cmocka_unit_test(figures_do_not_depend_on_shared_runs),
        cmocka_unit_test(verdicts_are_those_worked_out_by_hand),
    };
    return cmocka_run_group_tests(tests, open_demo, close_demo);
}
