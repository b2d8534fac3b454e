using System.Buffers.Binary;
#if NET8_0_OR_GREATER
using System.Numerics;
#endif

namespace DeviceOps.Client;

/// <summary>CRC-32C (Castagnoli), reflected, as blobs and stdio frames carry it. Of the ASCII text <c>123456789</c> it is 0xE3069283.</summary>
internal static class Crc32C
{
    /// <summary>The checksum of some bytes.</summary>
    public static uint Of(ReadOnlySpan<byte> bytes) => Append(0, bytes);

    /// <summary>The checksum of what <paramref name="before"/> is the checksum of, followed by some bytes.</summary>
    public static uint Append(uint before, ReadOnlySpan<byte> bytes)
    {
        var crc = ~before;
#if NET8_0_OR_GREATER
        for (; bytes.Length >= 8; bytes = bytes[8..])
        {
            crc = BitOperations.Crc32C(crc, BinaryPrimitives.ReadUInt64LittleEndian(bytes));
        }
        foreach (var value in bytes)
        {
            crc = BitOperations.Crc32C(crc, value);
        }
#else
        foreach (var value in bytes)
        {
            crc = Table[(byte)(crc ^ value)] ^ (crc >> 8);
        }
#endif
        return ~crc;
    }

#if !NET8_0_OR_GREATER
    private static readonly uint[] Table = MakeTable();

    private static uint[] MakeTable()
    {
        const uint reflected = 0x82F63B78;
        var table = new uint[256];
        for (uint index = 0; index < table.Length; index++)
        {
            var value = index;
            for (var bit = 0; bit < 8; bit++)
            {
                value = (value & 1) == 0 ? value >> 1 : (value >> 1) ^ reflected;
            }
            table[index] = value;
        }
        return table;
    }
#endif
}
