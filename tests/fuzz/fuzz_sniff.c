/* First bytes: an answer for a prefix is the answer for the whole. */
#include "gateway/wire/sniff.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum sniff_result answer = SNIFF_NEED_MORE;
    size = size < 512 ? size : 512;
    for (size_t len = 0; len <= size; len++) {
        enum sniff_result result = sniff_first_bytes(slice_make(data, len));
        if (answer != SNIFF_NEED_MORE && result != answer)
            abort();
        answer = result;
    }
    return 0;
}
