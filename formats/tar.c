// Tar headers, laid out by hand: POSIX.1-2001, ustar and pax.
#include "formats/tar.h"
#include "formats/limits.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

// Digits and a final NUL or space fill `field`, as ustar wants them.
static void put_octal(uint8_t *field, size_t width, uint64_t value)
{
    for (size_t i = width - 1; i-- > 0; value >>= 3) {
        field[i] = (uint8_t)('0' + (value & 7));
    }
    field[width - 1] = '\0';
}

static const uint8_t ustar[8] = {'u', 's', 't', 'a', 'r', '\0', '0', '0'}; // magic, version

static void put_header(uint8_t *header, char type, uint64_t size)
{
    put_octal(header + 100, 8, 0644);
    put_octal(header + 108, 8, 0);
    put_octal(header + 116, 8, 0);
    put_octal(header + 124, 12, size);
    put_octal(header + 136, 12, 0);
    header[156] = (uint8_t)type;
    memcpy(header + 257, ustar, sizeof ustar);
    memset(header + 148, ' ', 8);
    unsigned sum = 0;
    for (unsigned i = 0; i < TAR_BLOCK; i++) {
        sum += header[i];
    }
    put_octal(header + 148, 7, sum);
}

// Puts `name` into the header's name and prefix fields; false when it does not fit.
static bool put_name(uint8_t *header, const char *name, size_t len)
{
    if (len <= 100) {
        memcpy(header, name, len);
        return true;
    }
    for (size_t cut = len - 101; cut <= 155 && cut < len - 1; cut++) {
        if (name[cut] == '/' && cut > 0) {
            memcpy(header + 345, name, cut);
            memcpy(header, name + cut + 1, len - cut - 1);
            return true;
        }
    }
    return false;
}

// "LENGTH path=NAME\n", where LENGTH counts its own digits.
static size_t pax_record(char *text, size_t capacity, const char *name, size_t name_len)
{
    size_t rest = strlen(" path=") + name_len + 1, total = rest, last;
    do {
        last = total;
        total = rest + (size_t)snprintf(NULL, 0, "%zu", last);
    } while (total != last);
    return (size_t)snprintf(text, capacity, "%zu path=%s\n", total, name);
}

static size_t put_pax(uint8_t *head, const char *name, size_t name_len)
{
    char text[LIMIT_NAME_BYTES + 32];
    size_t len = pax_record(text, sizeof text, name, name_len);
    snprintf((char *)head, 100, "PaxHeaders/name");
    put_header(head, 'x', len);
    memcpy(head + TAR_BLOCK, text, len);
    return TAR_BLOCK + len + tar_padding(len);
}

size_t tar_head(uint8_t head[TAR_HEAD_BYTES], const char *name, uint64_t size)
{
    size_t name_len = strlen(name), at = 0;
    memset(head, 0, TAR_HEAD_BYTES);
    uint8_t fields[TAR_BLOCK] = {0};
    if (!put_name(fields, name, name_len)) {
        at = put_pax(head, name, name_len);
        snprintf((char *)fields, 100, "long-name");
    }
    memcpy(head + at, fields, sizeof fields);
    put_header(head + at, '0', size);
    return at + TAR_BLOCK;
}

size_t tar_padding(uint64_t size)
{
    return (size_t)((TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK);
}
