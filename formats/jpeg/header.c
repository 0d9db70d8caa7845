// Markers up to the start of the scan. A segment is read only within its own length, which was
// checked against the file's.
#include "formats/jpeg/header.h"
#include "formats/limits.h"

#include <string.h>

#define TABLES 4 // of each kind

enum marker {
    SOF0 = 0xc0, // baseline
    SOF1 = 0xc1, // extended, of which we take what baseline could say
    DHT = 0xc4,
    SOI = 0xd8,
    SOS = 0xda,
    DQT = 0xdb,
    DRI = 0xdd,
    APP0 = 0xe0,
    APP14 = 0xee,
    APP15 = 0xef,
    COM = 0xfe
};

const uint8_t jpeg_natural_place[JPEG_BLOCK] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

struct span {
    const uint8_t *at;
    size_t len;
};

// What was seen on the way to the scan.
struct reading {
    struct jpeg_header *header;
    const uint8_t *quant[TABLES]; // NULL: not seen
    bool quant_wide[TABLES];
    struct jpeg_huffman_code codes[2][TABLES]; // DC, AC
    uint8_t id[3], quant_of[3];
    bool frame, jfif, adobe;
    uint8_t adobe_transform;
};

static uint32_t big16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static struct span cut(struct span *from, size_t len)
{
    struct span head = {from->at, len};
    from->at += len;
    from->len -= len;
    return head;
}

static bool read_quant(struct reading *reading, struct span body)
{
    while (body.len > 0) {
        uint8_t what = cut(&body, 1).at[0];
        bool wide = what >> 4;
        size_t size = wide ? 2 * JPEG_BLOCK : JPEG_BLOCK;
        if ((what & 15) >= TABLES || what >> 4 > 1 || body.len < size) {
            return false;
        }
        reading->quant_wide[what & 15] = wide;
        reading->quant[what & 15] = cut(&body, size).at;
    }
    return true;
}

static bool read_codes(struct reading *reading, struct span body)
{
    while (body.len > 0) {
        if (body.len < 17) {
            return false;
        }
        uint8_t what = cut(&body, 1).at[0];
        const uint8_t *counts = cut(&body, 16).at;
        size_t total = 0;
        for (int i = 0; i < 16; i++) {
            total += counts[i];
        }
        if ((what & 15) >= TABLES || what >> 4 > 1 || total > 256 || body.len < total) {
            return false;
        }
        reading->codes[what >> 4][what & 15] =
            (struct jpeg_huffman_code){counts, cut(&body, total).at};
    }
    return true;
}

static bool is_plain_sampling(const struct jpeg_frame *frame)
{
    const struct jpeg_component *c = frame->component;
    return c[0].h >= 1 && c[0].h <= 2 && c[0].v >= 1 && c[0].v <= 2 && c[1].h == 1 && c[1].v == 1 &&
           c[2].h == 1 && c[2].v == 1;
}

static bool read_frame(struct reading *reading, struct span body)
{
    struct jpeg_frame *frame = &reading->header->frame;
    if (reading->frame || body.len < 6 || body.at[0] != 8) {
        return false;
    }
    reading->frame = true;
    frame->height = big16(body.at + 1);
    frame->width = big16(body.at + 3);
    frame->components = body.at[5];
    if ((frame->components != 1 && frame->components != 3) ||
        body.len != 6 + 3 * (size_t)frame->components) {
        return false;
    }
    for (uint32_t c = 0; c < frame->components; c++) {
        const uint8_t *of = body.at + 6 + 3 * c;
        reading->id[c] = of[0];
        frame->component[c].h = of[1] >> 4;
        frame->component[c].v = of[1] & 15;
        reading->quant_of[c] = of[2];
    }
    struct jpeg_component *first = &frame->component[0];
    if (frame->components == 1) {
        if (first->h < 1 || first->h > 4 || first->v < 1 || first->v > 4) {
            return false;
        }
        first->h = first->v = 1; // in a scan of its own, a component's MCU is one block
    } else if (!is_plain_sampling(frame)) {
        return false;
    }
    return frame->width >= 1 && frame->height >= 1 && frame->width <= LIMIT_IMAGE_SIDE &&
           frame->height <= LIMIT_IMAGE_SIDE &&
           (uint64_t)frame->width * frame->height <= LIMIT_IMAGE_PIXELS;
}

static bool read_application(struct reading *reading, uint8_t marker, struct span body)
{
    if (marker == APP0 && body.len >= 14 && memcmp(body.at, "JFIF", 5) == 0) {
        reading->jfif = true;
        return body.at[5] == 1; // libjpeg warns of another version
    }
    if (marker == APP14 && body.len >= 12 && memcmp(body.at, "Adobe", 5) == 0) {
        reading->adobe = true;
        reading->adobe_transform = body.at[11];
    }
    return true;
}

// As libjpeg guesses it. A transform that makes it warn is not plain.
static bool find_colors(struct reading *reading)
{
    struct jpeg_frame *frame = &reading->header->frame;
    frame->rgb = false;
    if (frame->components == 3 && !reading->jfif) {
        if (reading->adobe) {
            frame->rgb = reading->adobe_transform == 0;
            return reading->adobe_transform <= 1;
        }
        frame->rgb = memcmp(reading->id, "RGB", 3) == 0;
    }
    return true;
}

// Whether the counts make a prefix code that leaves the code of all ones unused.
static bool is_valid_code(const struct jpeg_huffman_code *code, bool dc)
{
    uint32_t next = 0, total = 0;
    for (uint32_t bits = 1; bits <= 16; bits++) {
        uint32_t count = code->counts[bits - 1];
        next = 2 * next + count;
        total += count;
        if (count > 0 && next >= UINT32_C(1) << bits) {
            return false;
        }
    }
    for (uint32_t i = 0; dc && i < total; i++) {
        if (code->symbols[i] > 15) {
            return false;
        }
    }
    return true;
}

static bool resolve_component(struct reading *reading, uint32_t c, const uint8_t *in_scan)
{
    struct jpeg_header *header = reading->header;
    uint8_t dc = in_scan[1] >> 4, ac = in_scan[1] & 15, quant = reading->quant_of[c];
    if (in_scan[0] != reading->id[c] || dc >= TABLES || ac >= TABLES || quant >= TABLES ||
        reading->codes[0][dc].counts == NULL || reading->codes[1][ac].counts == NULL ||
        reading->quant[quant] == NULL) {
        return false;
    }
    header->dc[c] = reading->codes[0][dc];
    header->ac[c] = reading->codes[1][ac];
    const uint8_t *steps = reading->quant[quant];
    for (uint32_t i = 0; i < JPEG_BLOCK; i++) {
        header->frame.component[c].quant[jpeg_natural_place[i]] =
            reading->quant_wide[quant] ? (uint16_t)big16(steps + 2 * i) : steps[i];
    }
    return is_valid_code(&header->dc[c], true) && is_valid_code(&header->ac[c], false);
}

static bool read_scan(struct reading *reading, struct span body)
{
    struct jpeg_frame *frame = &reading->header->frame;
    size_t count = frame->components;
    if (!reading->frame || body.len != 4 + 2 * count || body.at[0] != count ||
        memcmp(body.at + 1 + 2 * count, "\0\77\0", 3) != 0) { // coefficients 0 to 63, whole
        return false;
    }
    for (uint32_t c = 0; c < count; c++) {
        if (!resolve_component(reading, c, body.at + 1 + 2 * c)) {
            return false;
        }
    }
    frame->h_max = frame->component[0].h;
    frame->v_max = frame->component[0].v;
    frame->mcus_wide = (frame->width + 8 * frame->h_max - 1) / (8 * frame->h_max);
    frame->mcus_high = (frame->height + 8 * frame->v_max - 1) / (8 * frame->v_max);
    return find_colors(reading);
}

static bool read_segment(struct reading *reading, uint8_t marker, struct span body)
{
    switch (marker) {
    case DQT:
        return read_quant(reading, body);
    case DHT:
        return read_codes(reading, body);
    case SOF0:
    case SOF1:
        return read_frame(reading, body);
    case DRI:
        reading->header->restart_interval = body.len == 2 ? big16(body.at) : 0;
        return body.len == 2;
    case SOS:
        return read_scan(reading, body);
    default:
        return marker == COM ||
               (marker >= APP0 && marker <= APP15 && read_application(reading, marker, body));
    }
}

bool jpeg_header_read(struct jpeg_header *header, const uint8_t *bytes, size_t len)
{
    struct reading reading = {.header = header};
    struct span rest = {bytes, len};
    header->restart_interval = 0;
    if (len < 2 || cut(&rest, 2).at[0] != 0xff || bytes[1] != SOI) {
        return false;
    }
    for (uint8_t marker = 0; marker != SOS;) {
        if (rest.len < 1 || cut(&rest, 1).at[0] != 0xff) {
            return false;
        }
        do {
            if (rest.len < 1) {
                return false;
            }
            marker = cut(&rest, 1).at[0];
        } while (marker == 0xff); // fill bytes
        if (rest.len < 2 || big16(rest.at) < 2 || big16(rest.at) > rest.len) {
            return false;
        }
        struct span body = cut(&rest, big16(rest.at));
        cut(&body, 2);
        if (!read_segment(&reading, marker, body)) {
            return false;
        }
    }
    header->scan = len - rest.len;
    return true;
}
