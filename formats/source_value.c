// Finds out what a value is, and where the picture lies in it.
#include "formats/source_value.h"
#include "formats/pickle.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SHOWN 16 // bytes of an unknown value

const char *source_value_form_name(enum source_value_form form)
{
    static const char *const names[SOURCE_VALUE_FORMS] = {
        [SOURCE_VALUE_IMAGE] = "image files",
        [SOURCE_VALUE_DATUM_FILE] = "Caffe Datums with encoded images",
        [SOURCE_VALUE_DATUM_RAW] = "Caffe Datums with raw pixels",
        [SOURCE_VALUE_PICKLE] = "pickled (image, label)",
        [SOURCE_VALUE_MSGPACK] = "msgpack [image, label]",
    };
    return names[form];
}

// --- refusals ----------------------------------------------------------------------------------

static const char *known_as(const uint8_t *head, size_t len)
{
    if (len >= 12 && memcmp(head, "RIFF", 4) == 0 && memcmp(head + 8, "WEBP", 4) == 0) {
        return "a WebP image (as LSUN's LMDBs have): only JPEG and PNG are read; write the images "
               "as JPEG files first";
    }
    if (len >= 4 && memcmp(head, "GIF8", 4) == 0) {
        return "a GIF image: only JPEG and PNG are read";
    }
    if (len >= 2 && memcmp(head, "BM", 2) == 0) {
        return "a BMP image: only JPEG and PNG are read";
    }
    if (len >= 6 && memcmp(head, "\x93NUMPY", 6) == 0) {
        return "a NumPy array";
    }
    return NULL;
}

static enum status refuse(struct source_range *range, struct error *error)
{
    uint8_t head[SHOWN];
    size_t len;
    enum status status = source_range_head(range, head, sizeof head, &len, error);
    if (status != STATUS_OK) {
        return status;
    }
    const char *what = known_as(head, len);
    if (what != NULL) {
        return error_set(error, STATUS_UNSUPPORTED, range->path, range->start, NOWHERE,
                         "a value is %s", what);
    }
    char shown[3 * SHOWN + 1] = "", text[SHOWN + 1] = "";
    for (size_t i = 0; i < len; i++) {
        snprintf(shown + 3 * i, 4, "%02x ", head[i]);
        text[i] = isprint(head[i]) ? (char)head[i] : '.';
    }
    return error_set(error, STATUS_UNSUPPORTED, range->path, range->start, NOWHERE,
                     "a value of %" PRIu64 " bytes is no image, Datum, pickle or msgpack of one; "
                     "it starts with %s'%s'",
                     range->len, shown, text);
}

// `value->image` must be an image file.
static enum status check_image(struct source_value *value, struct error *error)
{
    enum status status = source_range_ending(&value->image, &value->ending, error);
    return status != STATUS_OK || value->ending != NULL ? status : refuse(&value->image, error);
}

// --- Datum -------------------------------------------------------------------------------------

struct datum {
    uint64_t fields[8]; // the numbers among them
    struct source_range data;
    bool has_data, has_label, has_floats;
};

// Not with formats/protobuf.h, which wants the message in memory: the label stands behind the
// picture, and the first look at a source wants only the label.
static bool take_varint(struct source_range *range, uint64_t *at, uint64_t *number)
{
    *number = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte;
        if (*at >= range->len || source_range_read(range, *at, &byte, 1, NULL) != STATUS_OK) {
            return false;
        }
        ++*at;
        *number |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            return true;
        }
    }
    return false;
}

static bool take_field(struct source_range *range, uint64_t *at, struct datum *datum)
{
    uint64_t tag, number;
    if (!take_varint(range, at, &tag) || !take_varint(range, at, &number)) {
        return false;
    }
    switch (tag) {
    case 1 << 3: // channels
    case 2 << 3: // height
    case 3 << 3: // width
    case 5 << 3: // label
    case 7 << 3: // encoded
        datum->fields[tag >> 3] = number;
        datum->has_label |= tag == 5 << 3;
        return true;
    case 4 << 3 | 2: // data
        datum->has_data = source_range_part(range, *at, number, &datum->data);
        break;
    case 6 << 3 | 2: // float data, packed
        datum->has_floats = true;
        break;
    default:
        return false;
    }
    if (number > range->len - *at) {
        return false;
    }
    *at += number;
    return true;
}

// Whether the whole value reads as a Datum.
static bool parse_datum(struct source_range *range, struct datum *datum)
{
    *datum = (struct datum){.has_data = false};
    uint64_t at = 0;
    while (at < range->len) {
        if (!take_field(range, &at, datum)) {
            return false;
        }
    }
    return datum->has_data || datum->has_floats;
}

static enum status use_datum(struct source_value *value, const struct datum *datum,
                             struct error *error)
{
    uint64_t channels = datum->fields[1];
    if (!datum->has_data) {
        return error_set(error, STATUS_UNSUPPORTED, value->image.path, value->image.start, NOWHERE,
                         "a Caffe Datum of floating-point numbers: only 8-bit pixels are read");
    }
    value->image = datum->data;
    value->labelled = datum->has_label;
    value->label = (int32_t)datum->fields[5];
    value->form = SOURCE_VALUE_DATUM_FILE;
    if (datum->fields[7] != 0) {
        return check_image(value, error);
    }
    if (channels != 1 && channels != 3) {
        return error_set(error, STATUS_UNSUPPORTED, value->image.path, value->image.start, NOWHERE,
                         "a Caffe Datum of %" PRIu64 " channels: 1 and 3 are read", channels);
    }
    value->form = SOURCE_VALUE_DATUM_RAW;
    value->pixels = channels == 1 ? SOURCE_PIXELS_GREY : SOURCE_PIXELS_BGR_PLANES;
    value->height = datum->fields[2];
    value->width = datum->fields[3];
    value->ending = ".png";
    return STATUS_OK;
}

// --- pickle ------------------------------------------------------------------------------------

static enum status use_pickle(struct source_value *value, struct source_range *range,
                              struct error *error)
{
    struct pickle pickle;
    enum status status = pickle_parse(&pickle, range, error);
    if (status != STATUS_OK) {
        return status;
    }
    const struct pickle_value *items = &pickle.result, *image = NULL, *label = NULL;
    size_t count = 1;
    if (items->type == PICKLE_SEQUENCE) {
        count = (size_t)items->len;
        items = pickle.items + items->at;
    }
    for (size_t i = 0; i < count; i++) {
        image = image == NULL && items[i].type == PICKLE_BYTES ? &items[i] : image;
        label = label == NULL && items[i].type == PICKLE_NUMBER ? &items[i] : label;
    }
    if (image == NULL || !source_range_part(range, image->at, image->len, &value->image)) {
        return error_set(error, STATUS_UNSUPPORTED, range->path, range->start, NOWHERE,
                         "a pickle without bytes in it");
    }
    value->form = SOURCE_VALUE_PICKLE;
    value->labelled = label != NULL;
    value->label = label != NULL ? label->number : 0;
    return check_image(value, error);
}

// --- msgpack -----------------------------------------------------------------------------------

// The big-endian number behind `code`, of a width that the two low bits of it tell.
static bool take_sized(struct source_range *range, uint64_t *at, unsigned width, uint64_t *number)
{
    uint8_t bytes[8];
    if (source_range_read(range, *at, bytes, width, NULL) != STATUS_OK) {
        return false;
    }
    *at += width;
    *number = 0;
    for (unsigned i = 0; i < width; i++) {
        *number = *number << 8 | bytes[i];
    }
    return true;
}

// bin 8 to 32, str 8 to 32: old writers have no other bytes than text.
static bool take_msgpack_bytes(struct source_range *range, uint64_t *at, struct source_range *part)
{
    uint64_t code, len;
    if (!take_sized(range, at, 1, &code)) {
        return false;
    }
    unsigned base = code >= 0xd9 ? 0xd9 : 0xc4;
    if (code < base || code > base + 2 || !take_sized(range, at, 1u << (code - base), &len) ||
        !source_range_part(range, *at, len, part)) {
        return false;
    }
    *at += len;
    return true;
}

static bool take_msgpack_number(struct source_range *range, uint64_t *at, int64_t *number)
{
    uint64_t code, bits;
    if (!take_sized(range, at, 1, &code)) {
        return false;
    }
    if (code < 0x80 || code >= 0xe0) {
        *number = source_range_signed(code, 1);
        return true;
    }
    if (code < 0xcc || code > 0xd3) {
        return false;
    }
    unsigned width = 1u << (code & 3);
    if (!take_sized(range, at, width, &bits)) {
        return false;
    }
    *number = code >= 0xd0 ? source_range_signed(bits, width) : source_range_unsigned(bits);
    return true;
}

static bool parse_msgpack(struct source_range *range, struct source_value *value)
{
    uint64_t at = 1;
    return take_msgpack_bytes(range, &at, &value->image) &&
           take_msgpack_number(range, &at, &value->label) && at == range->len;
}

// --- which one ---------------------------------------------------------------------------------

enum status source_value_sniff(struct source_value *value, struct source_range *range,
                               struct error *error)
{
    struct datum datum;
    uint8_t first = 0;
    size_t got;
    value->image = *range;
    value->form = SOURCE_VALUE_IMAGE;
    value->pixels = SOURCE_PIXELS_NONE;
    value->labelled = false;
    enum status status = source_range_ending(range, &value->ending, error);
    if (status == STATUS_OK) {
        status = source_range_head(range, &first, 1, &got, error);
    }
    if (status != STATUS_OK || value->ending != NULL) {
        return status;
    }
    if (parse_datum(range, &datum)) {
        return use_datum(value, &datum, error);
    }
    if (first == 0x80) {
        return use_pickle(value, range, error);
    }
    if (first == 0x92 && parse_msgpack(range, value)) {
        value->form = SOURCE_VALUE_MSGPACK;
        value->labelled = true;
        return check_image(value, error);
    }
    return refuse(range, error);
}
