// The classes of ILSVRC2012's validation images, from its development kit: the archive
// ILSVRC2012_devkit_t12.tar.gz as it is, or the folder that it unpacks to. Of it are read
//
//     data/ILSVRC2012_validation_ground_truth.txt   a number (ILSVRC2012_ID) for each image
//     data/meta.mat                                 what the numbers mean: `synsets`, a table with
//                                                   ILSVRC2012_ID and WNID ("n01440764")
//
// The numbers are not the order of the WNIDs, in which the classes of the training set come: as
// labels they would fit no network trained on that.
#ifndef FORMATS_ILSVRC_DEVKIT_H
#define FORMATS_ILSVRC_DEVKIT_H

#include "formats/name_list.h"

// A folder or a tar; what else holds labels is text.
enum status ilsvrc_devkit_is(const char *path, bool *is, struct error *error);
// A line for each validation image, in order: `name` is its class's WNID. Ends with name_list_free.
enum status ilsvrc_devkit_read(struct name_list *labels, const char *path, struct error *error);

#endif
