/* A reader with a PIN pad: a driver for pcscd in front of libifdvpcd, which it forwards to.

   Knows FEATURE_VERIFY_PIN_DIRECT and FEATURE_MODIFY_PIN_DIRECT (PC/SC, part 10). What a person types
   stands in the file named in PINPAD_TYPED, a line for each PIN; each is taken away when it was
   typed. No line is a person who does nothing, "cancel" one who cancels. */

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long DWORD;
typedef unsigned char byte;
typedef long RESPONSECODE;
typedef struct { DWORD protocol, length; } SCARD_IO_HEADER;

enum { SUCCESS = 0, NOT_SUPPORTED = 614, COMMUNICATION_ERROR = 612 };
enum { VERIFY_HEAD = 19, MODIFY_HEAD = 24, LONGEST = 64 };
#define GET_FEATURES 0x42000D48
#define VERIFY 0x42330006
#define MODIFY 0x42330007

static void *real(const char *name)
{
  static void *driver;

  if (!driver)
    driver = dlopen(getenv("PINPAD_DRIVER"), RTLD_NOW);
  return driver ? dlsym(driver, name) : NULL;
}

#define FORWARD(name, parameters, arguments) \
  RESPONSECODE name parameters \
  { \
    RESPONSECODE(*forward) parameters = (RESPONSECODE(*) parameters)real(#name); \
    return forward ? forward arguments : COMMUNICATION_ERROR; \
  }

FORWARD(IFDHCreateChannelByName, (DWORD lun, char *name), (lun, name))
FORWARD(IFDHCreateChannel, (DWORD lun, DWORD channel), (lun, channel))
FORWARD(IFDHCloseChannel, (DWORD lun), (lun))
FORWARD(IFDHGetCapabilities, (DWORD lun, DWORD tag, DWORD *length, byte *value),
        (lun, tag, length, value))
FORWARD(IFDHSetCapabilities, (DWORD lun, DWORD tag, DWORD length, byte *value),
        (lun, tag, length, value))
FORWARD(IFDHSetProtocolParameters, (DWORD lun, DWORD protocol, byte flags, byte a, byte b, byte c),
        (lun, protocol, flags, a, b, c))
FORWARD(IFDHPowerICC, (DWORD lun, DWORD action, byte *atr, DWORD *length),
        (lun, action, atr, length))
FORWARD(IFDHTransmitToICC,
        (DWORD lun, SCARD_IO_HEADER send, byte *command, DWORD size, byte *answer, DWORD *length,
         SCARD_IO_HEADER *receive),
        (lun, send, command, size, answer, length, receive))
FORWARD(IFDHICCPresence, (DWORD lun), (lun))

/* Take the first line away. Returns its length, or -1 where there is none. */
static int typed(char *line)
{
  char rest[4096];
  size_t length;
  FILE *file = fopen(getenv("PINPAD_TYPED"), "r+");

  if (!file)
    return -1;
  if (!fgets(line, LONGEST, file)) {
    fclose(file);
    return -1;
  }
  length = fread(rest, 1, sizeof(rest), file);
  file = freopen(getenv("PINPAD_TYPED"), "w", file);
  if (!file)
    return -1;
  fwrite(rest, 1, length, file);
  fclose(file);
  line[strcspn(line, "\n")] = 0;
  return (int)strlen(line);
}

/* Have one PIN typed at the end of the command; return 0, or what the reader says instead. */
static unsigned type(byte *command, DWORD *size, const byte *lengths, char *line)
{
  int length = typed(line);

  if (length < 0)
    return 0x6400;
  if (!strcmp(line, "cancel"))
    return 0x6401;
  if (length < lengths[1] || length > lengths[0])
    return 0x6403;
  memcpy(command + *size, line, (size_t)length);
  *size += (DWORD)length;
  command[4] = (byte)(*size - 5);
  return 0;
}

static unsigned fill(DWORD code, const byte *told, DWORD length, byte *command, DWORD *size)
{
  char line[LONGEST], again[LONGEST];
  byte unused[5 + LONGEST];
  DWORD other = 5;
  unsigned said;
  DWORD head = code == VERIFY ? VERIFY_HEAD : MODIFY_HEAD;
  const byte *lengths = told + (code == VERIFY ? 5 : 7);

  /* The format that we know, and a whole command header with an empty length. */
  if (length != head + 5 || told[2] != 0x82 || told[head - 4] != 5 || told[head + 4] != 0)
    return 0x6B80;
  memcpy(command, told + head, 5);
  *size = 5;
  said = type(command, size, lengths, line);
  if (said || code == VERIFY)
    return said;
  if (told[9] != 3)
    return 0x6B80;
  said = type(command, size, lengths, line);
  if (!said)
    said = type(unused, &other, lengths, again);
  return said ? said : strcmp(line, again) ? 0x6402 : 0;
}

RESPONSECODE IFDHControl(DWORD lun, DWORD code, byte *told, DWORD length, byte *answer,
                         DWORD room, DWORD *written)
{
  static const byte FEATURES[] = {6, 4, 0x42, 0x33, 0, 6, 7, 4, 0x42, 0x33, 0, 7};
  SCARD_IO_HEADER send = {1, sizeof(send)}, receive;
  byte command[5 + 2 * LONGEST];
  DWORD size;
  unsigned said;

  *written = 0;
  if (code == GET_FEATURES && room >= sizeof(FEATURES)) {
    memcpy(answer, FEATURES, sizeof(FEATURES));
    *written = sizeof(FEATURES);
    return SUCCESS;
  }
  if ((code != VERIFY && code != MODIFY) || room < 2)
    return NOT_SUPPORTED;
  said = fill(code, told, length, command, &size);
  if (said) {
    answer[0] = (byte)(said >> 8);
    answer[1] = (byte)said;
    *written = 2;
    return SUCCESS;
  }
  *written = room;
  return IFDHTransmitToICC(lun, send, command, size, answer, written, &receive);
}
