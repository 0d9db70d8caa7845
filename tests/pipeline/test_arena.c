// The arena never hands out overlapping or misplaced pieces, and always recovers its room.
#include "pipeline/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_the_largest_piece_fits_an_empty_arena(void **state)
{
    (void)state;
    struct arena arena;
    assert_int_equal(arena_open(&arena, 0, 1000, 4, NULL), STATUS_OK);
    for (uint64_t len = 0; len <= 1000; len += 8) {
        uint32_t first, second;
        uint8_t *memory = arena_take(&arena, len, &first);
        assert_non_null(memory);
        memset(memory, 1, len);
        if (len > 700) {
            assert_null(arena_take(&arena, len, &second));
        }
        arena_give(&arena, first);
    }
    arena_close(&arena);
}

static void test_room_appears_when_the_oldest_comes_back(void **state)
{
    (void)state;
    struct arena arena;
    assert_int_equal(arena_open(&arena, 192, 64, 8, NULL), STATUS_OK);
    uint32_t piece[4], more;
    for (int i = 0; i < 4; i++) {
        assert_non_null(arena_take(&arena, 64, &piece[i]));
    }
    assert_null(arena_take(&arena, 64, &more));
    arena_give(&arena, piece[1]);
    assert_null(arena_take(&arena, 64, &more));
    arena_give(&arena, piece[0]);
    assert_non_null(arena_take(&arena, 64, &more));
    assert_non_null(arena_take(&arena, 64, &more));
    assert_null(arena_take(&arena, 64, &more));
    arena_close(&arena);
}

static void test_no_more_pieces_than_promised(void **state)
{
    (void)state;
    struct arena arena;
    assert_int_equal(arena_open(&arena, 4096, 64, 2, NULL), STATUS_OK);
    uint32_t first, second, third;
    assert_non_null(arena_take(&arena, 1, &first));
    assert_non_null(arena_take(&arena, 1, &second));
    assert_null(arena_take(&arena, 1, &third));
    arena_give(&arena, first);
    assert_non_null(arena_take(&arena, 1, &third));
    arena_close(&arena);
}

// Each piece is filled with its own number; a foreign byte on return is an overlap.
static void test_random_use_never_overlaps(void **state)
{
    (void)state;
    enum { PIECES = 16, LARGEST = 3000 };
    struct {
        uint8_t *memory;
        uint32_t piece;
        uint64_t len;
    } held[PIECES];
    struct arena arena;
    assert_int_equal(arena_open(&arena, 9000, LARGEST, PIECES, NULL), STATUS_OK);
    size_t count = 0, taken = 0;
    uint64_t random = 1;
    for (int step = 0; step < 200000; step++) {
        random = random * UINT64_C(6364136223846793005) + 1;
        uint64_t len = (random >> 40) % (LARGEST + 1);
        uint32_t piece;
        uint8_t *memory =
            count < PIECES && (random >> 33 & 1) ? arena_take(&arena, len, &piece) : NULL;
        if (memory) {
            assert_true((uintptr_t)memory % ARENA_ALIGNMENT == 0);
            assert_true(memory >= arena.memory && memory + len <= arena.memory + arena.size);
            memset(memory, (int)piece + 1, len);
            held[count].memory = memory;
            held[count].piece = piece;
            held[count++].len = len;
            taken++;
        } else if (count > 0) {
            size_t which = (random >> 20) % count;
            for (uint64_t i = 0; i < held[which].len; i++) {
                assert_int_equal(held[which].memory[i], held[which].piece + 1);
            }
            arena_give(&arena, held[which].piece);
            held[which] = held[--count];
        }
    }
    assert_true(taken > 10000);
    arena_close(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_largest_piece_fits_an_empty_arena),
        cmocka_unit_test(test_room_appears_when_the_oldest_comes_back),
        cmocka_unit_test(test_no_more_pieces_than_promised),
        cmocka_unit_test(test_random_use_never_overlaps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
