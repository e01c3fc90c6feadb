// Marks what a shared fastpdr::core exports; everything else is hidden.
#pragma once

#if defined(__GNUC__)
#define FASTPDR_API __attribute__((visibility("default")))
#else
#define FASTPDR_API
#endif
