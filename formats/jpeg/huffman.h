// The coefficients of a plain JPEG file (formats/jpeg/header.h), decoded from its Huffman codes.
//
// Strict where libjpeg is lenient: data that libjpeg would warn of, or only might, are
// STATUS_CORRUPT, and the caller asks libjpeg, which is the judge. What is accepted has exactly
// libjpeg's coefficients, as far as rows were asked for; if that includes the last row, the end
// marker was there too.
//
// How it is fast. The bytes are freed of stuffing a few KiB ahead (huffman.c), so that the decoding
// loop (huffman_simd.c) loads eight at a time and never looks for markers. One look into a table
// gives up to two symbols: their runs of zeros, the bits of codes and amplitudes together, the
// first one's coefficient and the sign of the second's; the next look waits for nothing but that
// number of bits. The loop's only branch that a processor cannot foresee is the end of a block.
// Blocks nobody asked for are decoded without amplitudes.
#ifndef FORMATS_JPEG_HUFFMAN_H
#define FORMATS_JPEG_HUFFMAN_H

#include "formats/jpeg/header.h"

#define JPEG_DC_LOOK    9    // bits of a look into a table
#define JPEG_AC_LOOK    11   //
#define JPEG_MCU_BLOCKS 6    // at most, in a plain file
#define JPEG_MCU_BYTES  1536 // an MCU of invalid data consumes less: 6 * 64 symbols of 31 bits
#define JPEG_WINDOW     4096 // unstuffed bytes at a time

// A code of whatever length.
struct jpeg_huffman_book {
    uint32_t limit[17];  // first 16-bit string beyond the codes of so many bits
    uint32_t offset[17]; // of the symbol, less the code
    uint8_t symbols[256];
};

struct jpeg_huffman_dc {
    uint32_t look[1 << JPEG_DC_LOOK];
    struct jpeg_huffman_book book;
};

struct jpeg_huffman_ac {
    uint64_t look[1 << JPEG_AC_LOOK];
    uint8_t bits[1 << JPEG_AC_LOOK]; // their low bytes: a look waits for the one before it no
                                     // longer than it takes to load from here
    uint8_t natural[192]; // of jpeg_natural_place, and beyond it the last; here for short addresses
    struct jpeg_huffman_book book;
};

struct jpeg_bits {
    uint64_t buffer;   // the next bits, the first one uppermost
    uint64_t count;    // of bits in `buffer` that lie before `at`, modulo 64
    const uint8_t *at; // the next byte of the window
};

// Owned by the caller, who need not look inside; about 70 KiB, nothing to free.
struct jpeg_huffman {
    struct jpeg_source source; // ask this for rows; without MCUs (first = end) blocks may be NULL

    // The scan.
    uint32_t mcus_wide, mcus_high;
    uint32_t restart_interval, before_restart; // MCUs; 0 and 0 for none
    uint32_t restarts;
    uint32_t next_row;
    bool broken; // an earlier call failed

    // An MCU.
    uint32_t blocks;
    struct jpeg_huffman_block {
        uint32_t component, x, y; // of `h` columns and `v` rows in the MCU
        const struct jpeg_huffman_dc *dc;
        const struct jpeg_huffman_ac *ac;
        int16_t *to;   // where the next MCU's block goes
        uint32_t step; // to the one after
    } block[JPEG_MCU_BLOCKS];
    uint32_t h[3];

    // Decoding.
    struct jpeg_bits bits;
    const uint8_t *limit; // an MCU may start if bits.at is not beyond
    int32_t predictor[3];
    bool invalid; // a code, coefficient or predictor was

    // The file's bytes, and the window: bytes of one segment without stuffing, then zeros.
    const uint8_t *input, *input_end;
    uint8_t *window_end;
    bool segment_ends; // at window_end
    uint8_t marker;    // that ends it; 0: the file ended, or stuffing after fill bytes
    uint8_t window[JPEG_WINDOW + JPEG_MCU_BYTES + 16];

    struct jpeg_huffman_dc dc[3];
    struct jpeg_huffman_ac ac[3];
};

// Prepares for a file of which `header` was read. `bytes` must outlive the rows; nothing beyond
// `len` is read. `decoder` must not move afterwards.
void jpeg_huffman_start(struct jpeg_huffman *decoder, const struct jpeg_header *header,
                        const uint8_t *bytes, size_t len);

#endif
