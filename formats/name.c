// The rules for names, each with the words that a refusal is explained with.
#include "formats/name.h"
#include "formats/limits.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

// Length of the UTF-8 sequence at `at`, or 0 when it is not one (overlong, surrogate, out of range,
// cut off).
static size_t sequence_length(const uint8_t *at, size_t left)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = at[0] < 0x80         ? 1
                 : at[0] >> 5 == 0x06 ? 2
                 : at[0] >> 4 == 0x0e ? 3
                 : at[0] >> 3 == 0x1e ? 4
                                      : 0;
    if (len == 0 || len > left) {
        return 0;
    }
    if (len == 1) {
        return 1;
    }
    uint32_t code = at[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if (at[i] >> 6 != 2) {
            return 0;
        }
        code = code << 6 | (at[i] & 0x3fu);
    }
    bool surrogate = code >= 0xd800 && code <= 0xdfff;
    return code >= smallest[len] && code <= 0x10ffff && !surrogate ? len : 0;
}

// `layout`: newline and tab may pass.
static const char *text_fault(const char *name, size_t len, bool layout)
{
    const uint8_t *bytes = (const uint8_t *)name;
    for (size_t at = 0; at < len;) {
        size_t step = sequence_length(bytes + at, len - at);
        if (step == 0) {
            return "is not valid UTF-8";
        }
        bool spacing = layout && (bytes[at] == '\n' || bytes[at] == '\t');
        bool control = bytes[at] < 0x20 || bytes[at] == 0x7f ||
                       (step == 2 && bytes[at] == 0xc2 && bytes[at + 1] < 0xa0);
        if (control && !spacing) {
            return "holds a control character";
        }
        at += step;
    }
    return NULL;
}

const char *name_fault(const char *name, size_t len)
{
    if (len == 0) {
        return "is empty";
    }
    if (len > LIMIT_NAME_BYTES) {
        return "is longer than 4096 bytes";
    }
    if (name[0] == '/') {
        return "is an absolute path";
    }
    for (size_t at = 0; at <= len;) {
        const char *slash = memchr(name + at, '/', len - at);
        size_t part = slash ? (size_t)(slash - name) - at : len - at;
        if (part == 0) {
            return "has an empty component";
        }
        if (part == 1 && name[at] == '.') {
            return "has a \".\" component";
        }
        if (part == 2 && memcmp(name + at, "..", 2) == 0) {
            return "has a \"..\" component";
        }
        at += part + 1;
    }
    return text_fault(name, len, false);
}

const char *name_class_fault(const char *name, size_t len)
{
    return memchr(name, '/', len) ? "holds a slash" : name_fault(name, len);
}

const char *name_file_fault(const char *name, size_t len)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    if (len == 0 || len > 255) {
        return "is not 1 to 255 bytes long";
    }
    if (name[0] == '.') {
        return "starts with a dot";
    }
    for (size_t at = 0; at < len; at++) {
        if (name[at] == '\0' || strchr(allowed, name[at]) == NULL) {
            return "holds a character other than letters, digits, '.', '_' and '-'";
        }
    }
    return NULL;
}

const char *name_text_fault(const char *text, size_t len)
{
    return text_fault(text, len, true);
}
