/* vocab_spm.c - SentencePiece models (tokenizer.model): pieces, scores and types out of a protocol buffer.
 *
 * Only what specification, architectures 19.7 needs is read; the message is walked with a reader of its own,
 * since four field types do not justify a library. Unknown fields are skipped by their wire type, as protocol
 * buffers demand.
 *
 * Message layout (sentencepiece_model.proto): ModelProto { repeated SentencePiece pieces = 1; TrainerSpec
 * trainer_spec = 2; NormalizerSpec normalizer_spec = 3; }, SentencePiece { string piece = 1; float score = 2;
 * Type type = 3; }, TrainerSpec { ModelType model_type = 3; }, NormalizerSpec { bytes precompiled_charsmap =
 * 2; bool add_dummy_prefix = 3; bool remove_extra_whitespaces = 4; bool escape_whitespaces = 5; }.
 *
 * Refuses: model types other than BPE (their algorithm is another). */
#include "vocab_build.h"

#include "formats/foreign.h"
#include "formats/utf8.h"
#include "libquant/base/filemap.h"

#include <math.h>
#include <string.h>

/* One message's bytes; `at` moves forward. */
struct proto {
    const uint8_t *at, *end;
};

struct field {
    uint64_t number;
    unsigned wire;      /* 0 varint, 1 eight bytes, 2 bytes, 5 four bytes */
    uint64_t value;     /* wire 0, 1, 5 */
    struct slice bytes; /* wire 2 */
};

static bool read_varint(struct proto *p, uint64_t *out)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70 && p->at < p->end; shift += 7) {
        uint8_t c = *p->at++;
        if (shift == 63 && c > 1)
            return false;
        v |= shift < 64 ? (uint64_t)(c & 0x7F) << shift : 0;
        if (c < 0x80) {
            *out = v;
            return true;
        }
    }
    return false;
}

/* 1: a field; 0: the end; -1: damaged. */
static int next_field(struct proto *p, struct field *f)
{
    uint64_t key;
    if (p->at == p->end)
        return 0;
    if (!read_varint(p, &key) || key >> 3 == 0)
        return -1;
    *f = (struct field){.number = key >> 3, .wire = key & 7};
    size_t left = (size_t)(p->end - p->at);
    switch (f->wire) {
    case 0: return read_varint(p, &f->value) ? 1 : -1;
    case 1:
        if (left < 8)
            return -1;
        f->value = load_u64(p->at);
        p->at += 8;
        return 1;
    case 2: {
        uint64_t n;
        if (!read_varint(p, &n) || n > (uint64_t)(p->end - p->at))
            return -1;
        f->bytes = (struct slice){p->at, (size_t)n};
        p->at += n;
        return 1;
    }
    case 5:
        if (left < 4)
            return -1;
        f->value = load_u32(p->at);
        p->at += 4;
        return 1;
    default: return -1;
    }
}

static struct proto proto_of(struct slice s)
{
    return (struct proto){s.data, s.data + s.len};
}

static int damaged(const char *what, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: damaged SentencePiece model (a field runs past its end)", what);
}

static int read_piece(struct vocab_build *b, struct slice message, const char *what, struct err *e)
{
    /* SentencePiece::Type -> token type; 0 is not a value of that enumeration, and
     * user-defined pieces count as normal ones (as the peer's converter has it) */
    static const enum token_type types[] = {TOKEN_NORMAL, TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL,
                                            TOKEN_NORMAL, TOKEN_UNUSED, TOKEN_BYTE};
    struct proto p = proto_of(message);
    struct field f;
    struct slice text = {0};
    float score = 0;
    uint64_t type = 1;
    int more;
    size_t id = b->v->n_tokens;
    while ((more = next_field(&p, &f)) > 0) {
        if (f.number == 1 && f.wire == 2) {
            text = f.bytes;
        } else if (f.number == 2 && f.wire == 5) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&score, &bits, 4);
        } else if (f.number == 3 && f.wire == 0) {
            type = f.value;
        }
    }
    if (more < 0)
        return damaged(what, e);
    if (type == 0 || type >= sizeof types / sizeof *types)
        return err_set(e, ERR_FORMAT, "%s: piece %zu has the unknown type %llu", what, id,
                       (unsigned long long)type);
    if (text.len == 0 || !utf8_valid(text.data, text.len) || memchr(text.data, 0, text.len))
        return err_set(e, ERR_FORMAT, "%s: piece %zu is not a UTF-8 text", what, id);
    if (!isfinite(score))
        return err_set(e, ERR_FORMAT, "%s: piece %zu has no finite score", what, id);
    return vocab_set(b, id, (const char *)text.data, text.len, types[type], score, e);
}

static int read_trainer_spec(struct slice message, const char *what, struct err *e)
{
    static const char *const names[] = {"?", "Unigram", "BPE", "word", "character"};
    struct proto p = proto_of(message);
    struct field f;
    uint64_t type = 1; /* Unigram is the format's default */
    int more;
    while ((more = next_field(&p, &f)) > 0)
        if (f.number == 3 && f.wire == 0)
            type = f.value;
    if (more < 0)
        return damaged(what, e);
    if (type != 2)
        return err_set(e, ERR_UNSUPPORTED, "%s: a SentencePiece model of type %s; only BPE is supported",
                       what, type < 5 ? names[type] : "unknown");
    return 0;
}

static int read_normalizer_spec(struct vocab_build *b, struct slice message, const char *what, struct err *e)
{
    struct proto p = proto_of(message);
    struct field f;
    bool prefix = true, trims = true, escapes = true;
    int more;
    while ((more = next_field(&p, &f)) > 0) {
        if (f.number == 3 && f.wire == 0)
            prefix = f.value != 0;
        else if (f.number == 4 && f.wire == 0)
            trims = f.value != 0;
        else if (f.number == 5 && f.wire == 0)
            escapes = f.value != 0;
        else if (f.number == 2 && f.bytes.len > 0)
            vocab_warn(b,
                       "[tokenizer-normaliser] %s: its character map is not applied; token ids of texts it "
                       "changes differ",
                       what);
    }
    if (more < 0)
        return damaged(what, e);
    if (!escapes)
        return err_set(e, ERR_UNSUPPORTED, "%s: a SentencePiece model that keeps spaces as spaces", what);
    if (trims)
        vocab_warn(b, "[tokenizer-normaliser] %s: it removes repeated spaces, which is not done here", what);
    if (!prefix)
        b->v->add_space_prefix = VOCAB_FLAG_FALSE;
    return 0;
}

int vocab_parse_spm(struct vocab_build *b, struct slice file, const char *what, struct err *e)
{
    struct proto p = proto_of(file);
    struct field f;
    bool trained = false;
    int more, rc = foreign_refuse(what, file.data, file.len, FOREIGN_GGUF, "a SentencePiece model", e);
    while (rc == 0 && (more = next_field(&p, &f)) != 0) {
        if (more < 0)
            return damaged(what, e);
        if (f.wire != 2)
            continue;
        if (f.number == 1) {
            rc = read_piece(b, f.bytes, what, e);
        } else if (f.number == 2) {
            trained = true;
            rc = read_trainer_spec(f.bytes, what, e);
        } else if (f.number == 3) {
            rc = read_normalizer_spec(b, f.bytes, what, e);
        }
    }
    if (rc == 0 && (b->v->n_tokens == 0 || !trained))
        rc = err_set(e, ERR_FORMAT, "%s: no pieces or no trainer_spec: not a SentencePiece model", what);
    b->v->model = VOCAB_SPM;
    b->v->pre = "default";
    return rc;
}

int vocab_import_spm(struct vocab_build *b, struct err *e)
{
    struct filemap m = {0};
    const char *path = vocab_path(b, "tokenizer.model");
    int rc = path ? filemap_open(&m, path, e) : err_set(e, ERR_NOMEM, "out of memory for a path");
    if (rc == 0 && m.size > VOCAB_MAX_FILE)
        rc = err_set(e, ERR_FORMAT, "%s: %zu bytes, at most %d are read", path, m.size, VOCAB_MAX_FILE);
    if (rc == 0)
        rc = vocab_parse_spm(b, (struct slice){m.data, m.size}, path, e);
    filemap_close(&m);
    if (rc == 0 && b->n_rows && b->v->n_tokens > b->n_rows) {
        vocab_warn(b,
                   "[token-dropped] %s: pieces from %llu on are dropped: the model has %llu embedding rows",
                   path, (unsigned long long)b->n_rows, (unsigned long long)b->n_rows);
        b->v->n_tokens = (size_t)b->n_rows;
    }
    if (rc == 0)
        rc = vocab_apply_added_spm(b, e);
    return rc == 0 ? vocab_finish(b, -10000, true, e) : rc;
}
