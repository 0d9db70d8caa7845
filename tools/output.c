// Directories that appear when they are complete.
#include "tools/output.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "formats/file.h"
#include "tools/interrupt.h"

static enum status check(const char *directory, const char *partial, struct error *error)
{
    for (int i = 0; i < 2; i++) {
        const char *path = i == 0 ? directory : partial;
        if (file_exists(path)) {
            return error_set(error, STATUS_EXISTS, path, NOWHERE, NOWHERE,
                             "exists already: choose another name, or remove it");
        }
    }
    return STATUS_OK;
}

static enum status name_partial(const char *directory, char **partial, struct error *error)
{
    if (asprintf(partial, "%s.partial", directory) < 0) {
        *partial = NULL;
        return error_errno(error, ENOMEM, directory, NOWHERE, "allocate memory for a path");
    }
    return STATUS_OK;
}

enum status output_check(const char *directory, struct error *error)
{
    char *partial;
    enum status status = name_partial(directory, &partial, error);
    if (status == STATUS_OK) {
        status = check(directory, partial, error);
    }
    free(partial);
    return status;
}

static enum status make_partial(const char *partial, struct error *error)
{
    interrupt_leaves("%s is incomplete: remove it", partial);
    return file_make_directories(partial, error);
}

enum status output_begin(const char *directory, char **partial, struct error *error)
{
    enum status status = name_partial(directory, partial, error);
    if (status == STATUS_OK) {
        status = check(directory, *partial, error);
    }
    return status == STATUS_OK ? make_partial(*partial, error) : status;
}

enum status output_finish(const char *partial, const char *directory, struct error *error)
{
    enum status status = file_rename(partial, directory, error);
    if (status == STATUS_OK) {
        interrupt_leaves_nothing();
    }
    return status;
}

enum status output_begin_beside(const char *directory, char **partial, struct error *error)
{
    enum status status = name_partial(directory, partial, error);
    if (status == STATUS_OK) {
        status = check(*partial, *partial, error);
    }
    return status == STATUS_OK ? make_partial(*partial, error) : status;
}

enum status output_replace(const char *partial, const char *directory, struct error *error)
{
    if (!file_exists(directory)) {
        return output_finish(partial, directory, error);
    }
    if (renameat2(AT_FDCWD, partial, AT_FDCWD, directory, RENAME_EXCHANGE) != 0) {
        return error_errno(error, errno, directory, NOWHERE,
                           "put the new one in the old one's place");
    }
    return output_remove(partial, error);
}

static int remove_entry(const char *path, const struct stat *about, int type, struct FTW *where)
{
    (void)about, (void)type, (void)where;
    return remove(path);
}

enum status output_remove(const char *directory, struct error *error)
{
    if (nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0) {
        return error_errno(error, errno, directory, NOWHERE, "remove");
    }
    interrupt_leaves_nothing();
    return STATUS_OK;
}
