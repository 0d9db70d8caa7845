// The stack machine of pickles, without the instructions that call anything.
#include "formats/pickle.h"

#include <ctype.h>
#include <string.h>

#define STEPS 1000 // instructions of one pickle

struct machine {
    struct pickle *pickle;
    struct source_range *range;
    struct error *error;
    uint64_t at;
    struct pickle_value stack[PICKLE_VALUES], memo[PICKLE_VALUES];
    bool noted[PICKLE_VALUES]; // the memo's
    uint32_t depth, memo_count;
    uint32_t marks[PICKLE_VALUES], mark_count; // depths
};

static enum status fail(const struct machine *machine, enum status status, const char *what)
{
    return error_set(machine->error, status, machine->range->path,
                     machine->range->start + machine->at, NOWHERE, "%s", what);
}

static enum status too_much(const struct machine *machine)
{
    return fail(machine, STATUS_UNSUPPORTED,
                "a pickle of more than a picture and its label: too many values");
}

static enum status underrun(const struct machine *machine)
{
    return fail(machine, STATUS_CORRUPT, "a broken pickle: it takes values that are not there");
}

// A little-endian number of `width` bytes.
static enum status take_number(struct machine *machine, unsigned width, uint64_t *number)
{
    uint8_t bytes[8];
    *number = 0;
    enum status status =
        source_range_read(machine->range, machine->at, bytes, width, machine->error);
    if (status == STATUS_OK) {
        machine->at += width;
        *number = source_range_number(bytes, width);
    }
    return status;
}

static enum status push(struct machine *machine, struct pickle_value value)
{
    if (machine->depth == PICKLE_VALUES) {
        return too_much(machine);
    }
    machine->stack[machine->depth++] = value;
    return STATUS_OK;
}

static enum status push_type(struct machine *machine, enum pickle_type type)
{
    return push(machine, (struct pickle_value){.type = type});
}

// --- numbers, bytes, text ----------------------------------------------------------------------

static enum status push_number(struct machine *machine, unsigned width, bool is_signed)
{
    uint64_t bits;
    enum status status = take_number(machine, width, &bits);
    int64_t number = is_signed ? source_range_signed(bits, width) : (int64_t)bits;
    return status ? status
                  : push(machine, (struct pickle_value){.type = PICKLE_NUMBER, .number = number});
}

static enum status push_long(struct machine *machine)
{
    uint64_t width;
    enum status status = take_number(machine, 1, &width);
    if (status == STATUS_OK && width > 8) {
        return fail(machine, STATUS_UNSUPPORTED, "a pickle of a number of more than 64 bits");
    }
    return status ? status : push_number(machine, (unsigned)width, true);
}

// A length of `width` bytes, then so many bytes.
static enum status push_blob(struct machine *machine, unsigned width, enum pickle_type type)
{
    uint64_t len;
    enum status status = take_number(machine, width, &len);
    if (status != STATUS_OK) {
        return status;
    }
    if (len > machine->range->len - machine->at) {
        return fail(machine, STATUS_TRUNCATED, "a pickle whose bytes are longer than it is");
    }
    struct pickle_value value = {.type = type, .at = machine->at, .len = len};
    machine->at += len;
    return push(machine, value);
}

// --- sequences ---------------------------------------------------------------------------------

// The topmost `count` values become the items of one.
static enum status gather(struct machine *machine, uint32_t count)
{
    struct pickle *pickle = machine->pickle;
    if (count > machine->depth) {
        return underrun(machine);
    }
    if (count > PICKLE_VALUES - pickle->item_count) {
        return too_much(machine);
    }
    machine->depth -= count;
    memcpy(pickle->items + pickle->item_count, machine->stack + machine->depth,
           count * sizeof *pickle->items);
    struct pickle_value value = {.type = PICKLE_SEQUENCE, .at = pickle->item_count, .len = count};
    pickle->item_count += count;
    return push(machine, value);
}

// The topmost `count` values join the list below them, which must be empty so far: then its copies
// in the memo are all that is wrong, and those are never asked for.
static enum status extend(struct machine *machine, uint32_t count)
{
    if (machine->depth <= count) {
        return underrun(machine);
    }
    const struct pickle_value *list = &machine->stack[machine->depth - count - 1];
    if (list->type != PICKLE_SEQUENCE || list->len != 0) {
        return fail(machine, STATUS_UNSUPPORTED, "a pickle that adds to a list again");
    }
    enum status status = gather(machine, count);
    if (status == STATUS_OK) {
        machine->depth--;
        machine->stack[machine->depth - 1] = machine->stack[machine->depth];
    }
    return status;
}

// The values above the last mark, which goes away.
static enum status since_mark(struct machine *machine, uint32_t *count)
{
    if (machine->mark_count == 0 || machine->marks[machine->mark_count - 1] > machine->depth) {
        return underrun(machine);
    }
    *count = machine->depth - machine->marks[--machine->mark_count];
    return STATUS_OK;
}

static enum status gather_marked(struct machine *machine, bool into_list)
{
    uint32_t count = 0;
    enum status status = since_mark(machine, &count);
    if (status == STATUS_OK) {
        status = into_list ? extend(machine, count) : gather(machine, count);
    }
    return status;
}

static enum status mark(struct machine *machine)
{
    if (machine->mark_count == PICKLE_VALUES) {
        return too_much(machine);
    }
    machine->marks[machine->mark_count++] = machine->depth;
    return STATUS_OK;
}

// --- the memo ----------------------------------------------------------------------------------

static enum status note(struct machine *machine, uint64_t index)
{
    if (machine->depth == 0) {
        return underrun(machine);
    }
    if (index >= PICKLE_VALUES) {
        return too_much(machine);
    }
    machine->memo[index] = machine->stack[machine->depth - 1];
    machine->noted[index] = true;
    machine->memo_count++;
    return STATUS_OK;
}

static enum status note_at(struct machine *machine, unsigned width)
{
    uint64_t index;
    enum status status = take_number(machine, width, &index);
    return status ? status : note(machine, index);
}

static enum status recall(struct machine *machine, unsigned width)
{
    uint64_t index;
    enum status status = take_number(machine, width, &index);
    if (status != STATUS_OK) {
        return status;
    }
    if (index >= PICKLE_VALUES || !machine->noted[index]) {
        return underrun(machine);
    }
    if (machine->memo[index].type == PICKLE_SEQUENCE) {
        return fail(machine, STATUS_UNSUPPORTED, "a pickle that uses a sequence twice");
    }
    return push(machine, machine->memo[index]);
}

// --- what is refused ---------------------------------------------------------------------------

// "module.name" of the two lines that follow GLOBAL.
static enum status refuse_global(struct machine *machine)
{
    char name[80];
    size_t used = 0;
    uint8_t byte = 0;
    for (int lines = 0; lines < 2 && used + 1 < sizeof name; machine->at++) {
        if (source_range_read(machine->range, machine->at, &byte, 1, NULL) != STATUS_OK) {
            break;
        }
        lines += byte == '\n';
        name[used++] = byte == '\n' ? '.' : isprint(byte) ? (char)byte : '?';
    }
    name[used > 0 ? used - 1 : 0] = '\0';
    return error_set(machine->error, STATUS_UNSUPPORTED, machine->range->path,
                     machine->range->start + machine->at, NOWHERE,
                     "a pickle that wants Python's %s: only tuples, lists, bytes and numbers are "
                     "read, nothing is called",
                     name);
}

static enum status refuse(struct machine *machine, uint8_t code)
{
    if (code == 'c') {
        return refuse_global(machine);
    }
    static const char calls[] = "\x93Rbio\x81\x92PQ\x82\x83\x84";
    const char *what = strchr(calls, (char)code) != NULL && code != 0
                           ? "would call or import something"
                       : strchr("}d", (char)code) != NULL && code != 0 ? "holds a dict"
                                                                       : "holds something else";
    return error_set(machine->error, STATUS_UNSUPPORTED, machine->range->path,
                     machine->range->start + machine->at - 1, NOWHERE,
                     "a pickle that %s (opcode 0x%02x): only tuples, lists, bytes and numbers are "
                     "read, nothing is called",
                     what, code);
}

// --- the machine -------------------------------------------------------------------------------

static enum status skip(struct machine *machine, unsigned bytes)
{
    uint64_t ignored;
    return take_number(machine, bytes, &ignored);
}

static enum status push_float(struct machine *machine)
{
    enum status status = skip(machine, 8);
    return status ? status : push_type(machine, PICKLE_OTHER);
}

static enum status run_simple(struct machine *machine, uint8_t code)
{
    switch (code) {
    case 'K':
        return push_number(machine, 1, false);
    case 'M':
        return push_number(machine, 2, false);
    case 'J':
        return push_number(machine, 4, true);
    case 0x8a:
        return push_long(machine);
    case 0x88: // True
    case 0x89: // False
    case 'N':
        return push_type(machine, PICKLE_OTHER);
    case 'G':
        return push_float(machine);
    case 'C':
    case 'U': // Python 2's text, which is bytes
        return push_blob(machine, 1, PICKLE_BYTES);
    case 'B':
    case 'T':
        return push_blob(machine, 4, PICKLE_BYTES);
    case 0x8e:
    case 0x96:
        return push_blob(machine, 8, PICKLE_BYTES);
    case 0x8c:
        return push_blob(machine, 1, PICKLE_TEXT);
    case 'X':
        return push_blob(machine, 4, PICKLE_TEXT);
    case 0x8d:
        return push_blob(machine, 8, PICKLE_TEXT);
    default:
        return refuse(machine, code);
    }
}

static enum status run(struct machine *machine, uint8_t code)
{
    switch (code) {
    case 0x95: // FRAME
        return skip(machine, 8);
    case '(':
        return mark(machine);
    case 't':
    case 'l':
        return gather_marked(machine, false);
    case 'e':
        return gather_marked(machine, true);
    case 'a':
        return extend(machine, 1);
    case ')':
    case ']':
        return gather(machine, 0);
    case 0x85:
    case 0x86:
    case 0x87:
        return gather(machine, code - 0x84u);
    case 'q':
        return note_at(machine, 1);
    case 'r':
        return note_at(machine, 4);
    case 0x94:
        return note(machine, machine->memo_count);
    case 'h':
        return recall(machine, 1);
    case 'j':
        return recall(machine, 4);
    default:
        return run_simple(machine, code);
    }
}

static enum status check_start(struct machine *machine)
{
    uint64_t start = 0;
    enum status status = take_number(machine, 2, &start);
    if (status == STATUS_OK && ((start & 0xff) != 0x80 || start >> 8 < 2 || start >> 8 > 5)) {
        status = fail(machine, STATUS_UNSUPPORTED, "not a pickle of protocol 2 to 5");
    }
    return status;
}

enum status pickle_parse(struct pickle *pickle, struct source_range *range, struct error *error)
{
    struct machine machine = {.pickle = pickle, .range = range, .error = error};
    pickle->item_count = 0;
    enum status status = check_start(&machine);
    for (int step = 0; status == STATUS_OK; step++) {
        uint64_t code = 0;
        status = step == STEPS ? too_much(&machine) : take_number(&machine, 1, &code);
        if (status == STATUS_OK && code == '.') {
            break;
        }
        status = status ? status : run(&machine, (uint8_t)code);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (machine.depth != 1 || machine.at != range->len) {
        return fail(&machine, STATUS_CORRUPT, "a broken pickle: it does not end with one value");
    }
    pickle->result = machine.stack[0];
    return STATUS_OK;
}
