// Escaping and data URIs.
#include "tools/html.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define REPLACEMENT "&#xfffd;"

// Bytes of the UTF-8 character at `text`, 0 when there is none. Overlong forms and surrogates are
// none.
static size_t character(const unsigned char *text)
{
    size_t len = text[0] < 0x80   ? 1
                 : text[0] < 0xc2 ? 0
                 : text[0] < 0xe0 ? 2
                 : text[0] < 0xf0 ? 3
                 : text[0] < 0xf5 ? 4
                                  : 0;
    for (size_t i = 1; i < len; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xf0 && text[1] < 0x90);
    bool beyond = (text[0] == 0xed && text[1] > 0x9f) || (text[0] == 0xf4 && text[1] > 0x8f);
    bool noncharacter = text[0] == 0xef && text[1] == 0xbf && text[2] >= 0xbe;
    return overlong || beyond || (len == 3 && noncharacter) ? 0 : len;
}

static const char *entity(unsigned char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ? REPLACEMENT : NULL;
    }
}

void html_text(FILE *page, const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at != 0;) {
        size_t len = character(at);
        const char *written = len == 0 ? REPLACEMENT : entity(*at);
        if (written != NULL) {
            fputs(written, page);
        } else {
            fwrite(at, 1, len, page);
        }
        at += len > 0 ? len : 1;
    }
}

void html_format(FILE *page, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    html_text(page, text);
}

static void put_base64(FILE *page, const uint8_t *bytes, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < len; i += 3) {
        size_t left = len - i;
        uint32_t word = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                        (left > 2 ? bytes[i + 2] : 0);
        putc(digits[word >> 18], page);
        putc(digits[word >> 12 & 63], page);
        putc(left > 1 ? digits[word >> 6 & 63] : '=', page);
        putc(left > 2 ? digits[word & 63] : '=', page);
    }
}

enum status html_picture(FILE *page, const struct image *picture, int quality, const char *class,
                         const char *alt, struct error *error)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    enum status status = image_encode_jpeg(picture, quality, &bytes, &len, error);
    if (status != STATUS_OK) {
        return status;
    }
    fputs("<img", page);
    if (class != NULL) {
        fprintf(page, " class=\"%s\"", class);
    }
    fprintf(page, " width=\"%u\" height=\"%u\" alt=\"", picture->width, picture->height);
    html_text(page, alt);
    fputs("\" src=\"data:image/jpeg;base64,", page);
    put_base64(page, bytes, len);
    fputs("\"/>", page);
    free(bytes);
    return STATUS_OK;
}
